//! Messages of the signal server and those of the mesh are the same, in the terms of two crates.

use peer_mesh::message::{Credentials, Message, Offer, RelayServer};
use peer_netbird::signal::{self, Description, IceCredentials, SessionId};

/// What came by the signal server; nothing, where the mesh has no use for it.
pub(super) fn received(message: signal::Message) -> Option<Message> {
    match message {
        signal::Message::Offer(description) => Some(Message::Offer(offer(description))),
        signal::Message::Answer(description) => Some(Message::Answer(offer(description))),
        signal::Message::Candidate(text) => Some(Message::Candidate(text)),
        signal::Message::GoIdle => Some(Message::GoIdle),
        signal::Message::Heartbeat | signal::Message::Mode => None,
    }
}

/// What goes to the signal server.
pub(super) fn to_send(message: Message) -> signal::Message {
    match message {
        Message::Offer(offer) => signal::Message::Offer(description(offer)),
        Message::Answer(offer) => signal::Message::Answer(description(offer)),
        Message::Candidate(text) => signal::Message::Candidate(text),
        Message::GoIdle => signal::Message::GoIdle,
    }
}

fn offer(description: Description) -> Offer {
    let Description { ice, listen_port, version, session, relay, relay_ip } = description;
    Offer {
        credentials: ice.map(|IceCredentials { ufrag, password }| Credentials { ufrag, pwd: password.into() }),
        session: session.map(|session| session.0),
        wireguard_port: listen_port,
        version,
        relay: relay.map(|url| RelayServer { url, address: relay_ip }),
    }
}

fn description(offer: Offer) -> Description {
    let Offer { credentials, session, wireguard_port, version, relay } = offer;
    let (relay, relay_ip) = relay.map_or((None, None), |relay| (Some(relay.url), relay.address));
    Description {
        ice: credentials.map(|Credentials { ufrag, pwd }| IceCredentials { ufrag, password: pwd.to_string() }),
        listen_port: wireguard_port,
        version,
        session: session.map(SessionId),
        relay,
        relay_ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_the_two() {
        let full = Offer {
            credentials: Some(Credentials { ufrag: "u".to_owned(), pwd: "p".to_owned().into() }),
            session: Some([1, 2, 3, 4, 5]),
            wireguard_port: 51820,
            version: "0.77.1".to_owned(),
            relay: Some(RelayServer {
                url: "rel://10.99.0.1:8080".to_owned(),
                address: Some("10.99.0.1".parse().expect("an address")),
            }),
        };
        let messages = [
            Message::Offer(full.clone()),
            Message::Answer(Offer { relay: None, credentials: None, session: None, ..full }),
            Message::Candidate("1 1 udp 1 10.0.0.1 1 typ host".to_owned()),
            Message::GoIdle,
        ];
        for message in messages {
            let there = to_send(message.clone());
            let there = signal::Message::decode(&there.encode()).expect("readable");
            assert_eq!(received(there), Some(message));
        }
        assert_eq!(received(signal::Message::Heartbeat), None);
    }
}
