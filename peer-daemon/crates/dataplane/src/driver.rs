//! The task that keeps a dataplane in step with its intent and with the node.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use peer_common::FlowEvent;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::doctor::Finding;
use crate::flows::FlowReader;
use crate::kernel::{self, Change, Changes, Netlink, Snapshot};
use crate::observe::Follow;
use crate::readiness::{self, Latches, Parts, ReadyRoutes};
use crate::trace::Packet;
use crate::{Dataplane, Error, Intent, Mode, Stats, ebpf, traffic};

/// How long changes of the node are gathered before they are looked at: they come in bursts, and a moving address shall
/// be followed within a second.
const GATHER: Duration = Duration::from_millis(50);
const COLLECT_EVERY: Duration = Duration::from_secs(5);
const RECONCILE_EVERY: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The driver has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dataplane has stopped")]
pub struct Stopped;

/// A driven dataplane.
#[derive(Debug)]
pub struct Driver {
    requests: mpsc::Sender<Request>,
    task: JoinHandle<()>,
    mode: Mode,
    refused: Option<Error>,
}

/// Asks a driver for figures; it may outlive the driver.
#[derive(Clone, Debug)]
pub struct StatsReader(mpsc::Sender<Request>);

/// Yields whenever the node changes.
type ChangeStream = Box<dyn Stream<Item = Change> + Send + Unpin>;

enum Request {
    Intent(Arc<Intent>, oneshot::Sender<Result<(), Error>>),
    Stats(Look, oneshot::Sender<Result<Stats, Error>>),
    Flows(oneshot::Sender<Result<FlowReader, Error>>),
    Describe(Packet, oneshot::Sender<Result<FlowEvent, Error>>),
    Follow(Option<(Follow, Duration)>, oneshot::Sender<Result<(), Error>>),
    Shutdown { keep: bool, done: oneshot::Sender<Result<(), Error>> },
}

/// What is done before figures are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nothing: findings are those of the last examination.
    Last,
    /// What stands in the way is examined now.
    Examine,
    /// The node is followed and examined now.
    Follow,
}

impl Driver {
    /// Applies `intent` once and goes on applying it whenever the node changes. `latches` are ready as long as all of it is
    /// in force, first in order, served as far as `ready_routes` asks, and counted alike by programs and devices. Needs a
    /// multi-threaded tokio runtime.
    ///
    /// If its rules or routes are more than the tables hold, there is no former policy to go on with, and to end would
    /// only begin the same again: nothing is served, a latch says why, and the next intent that fits makes it ready.
    ///
    /// # Errors
    /// When the intent cannot be put in force to begin with. With `keep` the dataplane then stays as it is: an earlier
    /// life has left it forwarding. Without, it is taken away.
    pub async fn start(
        mut dataplane: Box<dyn Dataplane>,
        intent: Intent,
        latches: Latches,
        ready_routes: ReadyRoutes,
        keep: bool,
    ) -> Result<Self, Error> {
        let mut prepared = prepare(dataplane.as_mut(), &intent).await;
        let refused = prepared.as_ref().err().filter(|error| error.is_too_large()).map(ToString::to_string);
        let (mut intent, mut error) = (intent, None);
        if refused.is_some() {
            (intent.routes, intent.rules) = (Vec::new(), Arc::default());
            error = prepared.err();
            prepared = prepare(dataplane.as_mut(), &intent).await;
        }
        let (changes, netlink, node) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                dataplane.shutdown(keep)?;
                return Err(error);
            }
        };
        let mode = dataplane.mode();
        let (requests, inbox) = mpsc::channel(16);
        let mut driven = Driven {
            dataplane,
            intent: Arc::new(intent),
            netlink,
            node,
            parts: Parts::new(latches, ready_routes),
            findings: Vec::new(),
            refused,
        };
        driven.watch_traffic().await;
        driven.report(&Ok(()));
        Ok(Self { requests, task: tokio::spawn(driven.run(changes, inbox)), mode, refused: error })
    }

    /// Why the intent of the start is not in force, and nothing is served; `None`: it is, or this was asked before.
    pub fn take_refused(&mut self) -> Option<Error> {
        self.refused.take()
    }

    /// Which dataplane, and why.
    #[must_use]
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Puts another intent in force.
    ///
    /// # Errors
    /// When that fails; what was in force stays in force.
    pub async fn apply(&self, intent: Arc<Intent>) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        ask(&self.requests, Request::Intent(intent, done), answer).await.map_err(stopped)?
    }

    /// Whom to ask for figures.
    #[must_use]
    pub fn stats(&self) -> StatsReader {
        StatsReader(self.requests.clone())
    }

    /// Ends. With `keep` everything goes on forwarding; without, nothing of ours is left.
    ///
    /// # Errors
    /// When something could not be removed.
    pub async fn shutdown(self, keep: bool) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let result = ask(&self.requests, Request::Shutdown { keep, done }, answer).await.map_err(stopped)?;
        let _ = self.task.await;
        result
    }
}

impl StatsReader {
    /// Figures, with the findings of the last examination.
    ///
    /// # Errors
    /// When the tables cannot be read, or the driver has ended.
    pub async fn read(&self) -> Result<Stats, Error> {
        self.stats(Look::Last).await
    }

    /// Figures, with findings of this moment about the node as it was followed last. Takes the driver some milliseconds.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn examined(&self) -> Result<Stats, Error> {
        self.stats(Look::Examine).await
    }

    /// Figures and findings of this moment: changes of the node that are on their way are followed first, and readiness with
    /// them. Takes the driver a question to the kernel per route.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn followed(&self) -> Result<Stats, Error> {
        self.stats(Look::Follow).await
    }

    async fn stats(&self, look: Look) -> Result<Stats, Error> {
        let (done, answer) = oneshot::channel();
        ask(&self.0, Request::Stats(look, done), answer).await.map_err(stopped)?
    }

    /// A reader of the flows held now. It reads by itself: the driver does not wait for it.
    ///
    /// # Errors
    /// When the tables cannot be shared, or the driver has ended.
    pub async fn flows(&self) -> Result<FlowReader, Error> {
        let (done, answer) = oneshot::channel();
        ask(&self.0, Request::Flows(done), answer).await.map_err(stopped)?
    }

    /// What would become of a packet from the mesh, as [`Dataplane::describe`].
    ///
    /// # Errors
    /// As there, or when the driver has ended.
    pub async fn describe(&self, packet: Packet) -> Result<FlowEvent, Error> {
        let (done, answer) = oneshot::channel();
        ask(&self.0, Request::Describe(packet, done), answer).await.map_err(stopped)?
    }

    /// Follows packets for so long, or none any more, as [`Dataplane::follow`].
    ///
    /// # Errors
    /// As there, or when the driver has ended.
    pub async fn follow(&self, follow: Option<(Follow, Duration)>) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        ask(&self.0, Request::Follow(follow, done), answer).await.map_err(stopped)?
    }
}

async fn prepare(dataplane: &mut dyn Dataplane, intent: &Intent) -> Result<(ChangeStream, Netlink, Snapshot), Error> {
    // Subscribed before the first look: no change falls in between.
    let changes = kernel::changes().map_err(|source| Error::io("subscribe to netlink", source))?;
    let netlink = Netlink::connect().map_err(|source| Error::io("connect to netlink", source))?;
    let node = netlink.snapshot(&ebpf::questions(intent)).await?;
    dataplane.apply(intent, &node)?;
    Ok((Box::new(changes), netlink, node))
}

async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: Request,
    answer: oneshot::Receiver<T>,
) -> Result<T, Stopped> {
    requests.send(request).await.map_err(|_| Stopped)?;
    answer.await.map_err(|_| Stopped)
}

fn stopped(stopped: Stopped) -> Error {
    Error::io("ask the dataplane", io::Error::other(stopped))
}

/// What the task owns.
struct Driven {
    dataplane: Box<dyn Dataplane>,
    intent: Arc<Intent>,
    netlink: Netlink,
    /// The node at the last look.
    node: Snapshot,
    parts: Parts,
    /// What stood in the way at the last look.
    findings: Vec<Finding>,
    /// Why nothing is served, from the start until an intent fits.
    refused: Option<String>,
}

impl Driven {
    async fn run(mut self, mut changes: ChangeStream, mut inbox: mpsc::Receiver<Request>) {
        let (mut collect, mut reconcile) = (every(COLLECT_EVERY), every(RECONCILE_EVERY));
        let mut probe = every(PROBE_EVERY);
        loop {
            tokio::select! {
                Some(change) = changes.next() => {
                    let gathered = gather(change, &mut changes).await;
                    self.follow(&gathered).await;
                }
                _ = collect.tick() => {
                    if let Err(error) = block_in_place(|| self.dataplane.collect_garbage()) {
                        tracing::warn!(%error, "the tables could not be tidied up");
                    }
                }
                _ = probe.tick() => self.probe_silent_neighbours().await,
                _ = reconcile.tick() => {
                    let mended = self.follow_neighbours().await.and_then(|()| self.mend());
                    self.report_unless_passing(mended).await;
                    self.watch_traffic().await;
                    self.examine();
                }
                request = inbox.recv() => match request {
                    Some(Request::Intent(intent, done)) => {
                        let known = self.intent.unsupported == intent.unsupported;
                        let _ = done.send(self.follow_intent(intent).await);
                        self.report(&Ok(()));
                        if !known {
                            self.examine();
                        }
                    }
                    Some(Request::Stats(look, done)) => {
                        self.look(look).await;
                        let stats = self.dataplane.stats();
                        let _ = done.send(stats.map(|stats| Stats { findings: self.findings.clone(), ..stats }));
                    }
                    Some(Request::Flows(done)) => {
                        let _ = done.send(self.dataplane.flows(&self.intent));
                    }
                    Some(Request::Describe(packet, done)) => {
                        let _ = done.send(self.dataplane.describe(&packet));
                    }
                    Some(Request::Follow(follow, done)) => {
                        let follow = follow.as_ref().map(|(follow, time)| (follow, *time));
                        let _ = done.send(self.dataplane.follow(follow));
                    }
                    Some(Request::Shutdown { keep, done }) => {
                        self.parts.latches.not_ready("stopping");
                        let _ = done.send(self.dataplane.shutdown(keep));
                        return;
                    }
                    // Nobody is left to ask: the process ends without ceremony, and what is pinned stays.
                    None => return,
                },
            }
        }
    }

    /// Reports what came of it; of a failure, what comes of a second try. A device may go on the way, of which the node tells a
    /// moment later: a first failure says nothing.
    async fn report_unless_passing(&mut self, first: Result<(), Error>) {
        let last = if first.is_err() { self.keep_up().await } else { first };
        self.report(&last);
    }

    /// Follows what has changed. Neighbours alone are written where they are named; the rest asks for a look at the node.
    async fn follow(&mut self, changes: &Changes) {
        if changes.beyond_neighbours() {
            let kept = self.keep_up().await;
            self.report_unless_passing(kept).await;
        }
        let mut followed = block_in_place(|| self.dataplane.follow_ways(changes));
        if followed.is_ok() && changes.lost {
            followed = self.follow_neighbours().await;
        }
        if let Err(error) = followed {
            tracing::warn!(%error, "next hops could not be followed");
        }
    }

    /// What the stream of changes may have missed.
    async fn follow_neighbours(&mut self) -> Result<(), Error> {
        let all = self.netlink.neighbours().await?;
        block_in_place(|| self.dataplane.follow_neighbours(&all))
    }

    /// Has the kernel ask for neighbours that did not answer, so that packets pass soon after one is back.
    async fn probe_silent_neighbours(&mut self) {
        let silent = match block_in_place(|| self.dataplane.silent_neighbours()) {
            Ok(silent) => silent,
            Err(error) => return tracing::warn!(%error, "silent neighbours could not be read"),
        };
        for (link, addr) in silent {
            if let Err(error) = self.netlink.ask_for(link, addr).await {
                // The link may have gone meanwhile: its next hops go, too.
                tracing::debug!(%addr, %error, "the kernel does not ask for a neighbour");
            }
        }
    }

    /// Follows the node, and sees to it that packets can flow.
    async fn keep_up(&mut self) -> Result<(), Error> {
        self.follow_node().await?;
        self.mend()
    }

    fn mend(&mut self) -> Result<(), Error> {
        block_in_place(|| self.dataplane.reconcile())?;
        self.check()
    }

    async fn follow_node(&mut self) -> Result<(), Error> {
        let node = self.netlink.snapshot(&ebpf::questions(&self.intent)).await?;
        if !node.links.contains_key(&self.intent.wt0.index) {
            return Err(Error::Wt0Gone { name: self.intent.wt0.name.clone() });
        }
        self.dataplane.apply(&self.intent, &node)?;
        self.node = node;
        Ok(())
    }

    async fn follow_intent(&mut self, intent: Arc<Intent>) -> Result<(), Error> {
        let node = self.netlink.snapshot(&ebpf::questions(&intent)).await?;
        // Thousands of rules are compiled and written.
        block_in_place(|| self.dataplane.apply(&intent, &node))?;
        self.intent = intent;
        self.node = node;
        self.refused = None;
        Ok(())
    }

    /// Why a program is not reached, if so.
    fn check(&self) -> Result<(), Error> {
        self.dataplane.stats().and_then(|stats| readiness::reached(&stats))
    }

    /// Compares what the programs redirect with what the devices count.
    async fn watch_traffic(&mut self) {
        let stats = self.dataplane.stats();
        let counted = match stats {
            Ok(stats) => self.netlink.counts().await.map(|devices| (stats, devices)),
            Err(error) => Err(error),
        };
        match counted {
            Ok((stats, devices)) => {
                let counts = traffic::crossings(&stats, &devices, &self.node, &self.intent.wt0);
                self.parts.watch_traffic(Instant::now(), counts);
            }
            Err(error) => tracing::warn!(%error, "counts of programs and devices could not be compared"),
        }
    }

    async fn look(&mut self, look: Look) {
        if look == Look::Follow {
            let kept = self.keep_up().await;
            self.report_unless_passing(kept).await;
        }
        if look != Look::Last {
            self.examine();
        }
    }

    /// Looks for what stands in the way, and logs what was not there at the last look.
    fn examine(&mut self) {
        let mut findings = block_in_place(|| self.dataplane.examine(&self.intent, &self.node));
        findings.extend(self.parts.traffic.findings());
        findings.sort_by_key(|finding| finding.severity);
        for finding in findings.iter().filter(|finding| !self.findings.contains(finding)) {
            let remedy = (!finding.remedy.is_empty()).then_some(finding.remedy.as_str());
            if finding.severity.is_conflict() {
                tracing::warn!(remedy, "{finding}");
            } else {
                tracing::info!(remedy, "{finding}");
            }
        }
        self.findings = findings;
    }

    /// Sets the latches by `result`, the outcome of the last change, and by the figures of this moment.
    fn report(&mut self, result: &Result<(), Error>) {
        let stats = self.dataplane.stats();
        self.parts.report(result, self.refused.as_deref(), &stats);
    }
}

/// What follows a change closely, with it.
async fn gather(first: Change, changes: &mut ChangeStream) -> Changes {
    sleep(GATHER).await;
    let mut gathered = Changes::default();
    gathered.add(first);
    while let Some(Some(change)) = changes.next().now_or_never() {
        gathered.add(change);
    }
    gathered
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
