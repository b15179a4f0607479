//! The end: what must be gone.

use anyhow::{Result, ensure};

use super::checks::Checks;
use super::machine::Machine;
use super::stage::Stage;
use crate::lab::{ForeignProgram, Namespace, Node};

/// Ends the daemon, looks around in the node, then ends the lab and looks around on the machine.
pub(crate) fn run(
    mut stage: Stage,
    foreign: ForeignProgram,
    devices: &[String],
    machine: &Machine,
    checks: &mut Checks,
) -> Result<()> {
    let ended = stage.node_mut().stop().and_then(|status| {
        ensure!(status.success(), "{status}");
        Ok("SIGTERM, then exit code 0".to_owned())
    });
    checks.add("clean_exit", ended);
    checks.add("nothing_left_in_the_node", left_in_node(stage.node(), devices));
    drop(foreign);
    let ids = stage.namespace_ids()?;
    drop(stage);
    checks.add("nothing_left_on_the_machine", left_on_machine(&ids, machine));
    Ok(())
}

fn left_in_node(node: &Node, devices: &[String]) -> Result<String> {
    let now = node.namespace.devices()?;
    ensure!(now == devices, "devices: {now:?}, before {devices:?}");
    let pins = node.pins()?;
    ensure!(pins.is_empty(), "pins: {pins:?}");
    let programs = ForeignProgram::chain_length(&node.namespace, "eth0")?;
    ensure!(programs == 1, "{programs} programs on eth0 ingress, the foreign one included");
    Ok("no device, pin or program of ours; the foreign program is still attached".to_owned())
}

fn left_on_machine(ids: &[u64], machine: &Machine) -> Result<String> {
    for &id in ids {
        ensure!(!Namespace::exists(id)?, "namespace {id} still exists: {:?}", Namespace::processes_in(id)?);
    }
    machine.expect_unchanged()?;
    Ok("no namespace, process, mount or device".to_owned())
}
