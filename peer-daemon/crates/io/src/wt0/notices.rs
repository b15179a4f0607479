//! Hears from the kernel that something about the device may have changed.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::read::oif;
use crate::Error;

/// Changes to one device: up or down, its settings, addresses and routes.
pub struct Notices {
    stream: Pin<Box<dyn Stream<Item = ()> + Send>>,
    task: tokio::task::JoinHandle<()>,
}

impl Notices {
    pub(super) fn listen(index: u32) -> Result<Self, Error> {
        let (connection, _handle, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])
        .map_err(Error::io("listening to changes of the device"))?;
        let task = tokio::spawn(connection);
        let concerning = messages.filter_map(move |(message, _)| {
            let concerns = match &message.payload {
                NetlinkPayload::InnerMessage(message) => concerns(message, index),
                // The kernel had more to tell than fits.
                NetlinkPayload::Overrun(_) => true,
                _ => false,
            };
            std::future::ready(concerns.then_some(()))
        });
        Ok(Self { stream: Box::pin(concerning), task })
    }

    /// Waits for the next change; for ever, once the connection has ended.
    pub async fn next(&mut self) {
        if self.stream.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn concerns(message: &RouteNetlinkMessage, index: u32) -> bool {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => link.header.index == index,
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            address.header.index == index
        }
        RouteNetlinkMessage::DelRoute(route) => oif(route) == Some(index),
        _ => false,
    }
}
