//! Requests that wait for their responses, of all sessions.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use foldhash::{HashMap, HashMapExt as _};
use peer_core::key::PublicKey;

use crate::limits::{TRANSACTION_TTL, TRANSACTIONS};
use crate::stun::TransactionId;

/// A connectivity check on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) peer: PublicKey,
    pub(crate) attempt: u32,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) sent: Instant,
}

/// Finds the session of a response by its transaction id.
#[derive(Debug)]
pub(crate) struct Transactions {
    open: HashMap<TransactionId, Transaction>,
    ages: VecDeque<(Instant, TransactionId)>,
}

impl Transactions {
    pub(crate) fn new() -> Self {
        Self { open: HashMap::new(), ages: VecDeque::new() }
    }

    /// The oldest goes when there are too many.
    pub(crate) fn insert(&mut self, id: TransactionId, transaction: Transaction) {
        self.expire(transaction.sent);
        if self.ages.len() >= TRANSACTIONS
            && let Some((_, oldest)) = self.ages.pop_front()
        {
            self.open.remove(&oldest);
        }
        self.ages.push_back((transaction.sent, id));
        self.open.insert(id, transaction);
    }

    pub(crate) fn get(&self, id: &TransactionId) -> Option<Transaction> {
        self.open.get(id).copied()
    }

    /// It was answered: a second response does not count.
    pub(crate) fn remove(&mut self, id: &TransactionId) {
        self.open.remove(id);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((_, id)) = self.ages.front().filter(|(at, _)| now >= *at + TRANSACTION_TTL) {
            self.open.remove(id);
            self.ages.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn insert(transactions: &mut Transactions, number: usize, sent: Instant) -> TransactionId {
        let address = "192.0.2.1:51820".parse().expect("an address");
        let mut id = [0; 12];
        id[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let transaction = Transaction { peer: PublicKey([1; 32]), attempt: 1, local: address, remote: address, sent };
        transactions.insert(id, transaction);
        id
    }

    #[test]
    fn expires() {
        let (mut transactions, start) = (Transactions::new(), Instant::now());
        let (first, second) =
            (insert(&mut transactions, 1, start), insert(&mut transactions, 2, start + Duration::from_secs(1)));
        transactions.expire(start + TRANSACTION_TTL);
        assert_eq!((transactions.get(&first), transactions.get(&second).is_some()), (None, true));
        transactions.remove(&second);
        assert_eq!((transactions.get(&second), transactions.len()), (None, 0));
    }

    #[test]
    fn bounded() {
        let (mut transactions, now) = (Transactions::new(), Instant::now());
        let first = insert(&mut transactions, 0, now);
        for number in 1..=TRANSACTIONS {
            insert(&mut transactions, number, now);
        }
        assert_eq!((transactions.len(), transactions.get(&first)), (TRANSACTIONS, None));
    }
}
