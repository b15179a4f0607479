//! Variables under their former prefix, `WT_`. The official client reads them still: `WT_` first, then `NB_`, so that of both the
//! second is in force, also where it is empty.

use clap::{Arg, Command};

/// Variables that the official client makes of its flags. Others of ours never had another name.
const FORMER: [(&str, &str); 18] = [
    ("NB_BLOCK_INBOUND", "WT_BLOCK_INBOUND"),
    ("NB_BLOCK_LAN_ACCESS", "WT_BLOCK_LAN_ACCESS"),
    ("NB_CONFIG", "WT_CONFIG"),
    ("NB_DAEMON_ADDR", "WT_DAEMON_ADDR"),
    ("NB_DISABLE_FIREWALL", "WT_DISABLE_FIREWALL"),
    ("NB_DISABLE_IPV6", "WT_DISABLE_IPV6"),
    ("NB_DISABLE_SERVER_ROUTES", "WT_DISABLE_SERVER_ROUTES"),
    ("NB_EXTRA_DNS_LABELS", "WT_EXTRA_DNS_LABELS"),
    ("NB_HOSTNAME", "WT_HOSTNAME"),
    ("NB_INTERFACE_NAME", "WT_INTERFACE_NAME"),
    ("NB_LOG_FILE", "WT_LOG_FILE"),
    ("NB_LOG_LEVEL", "WT_LOG_LEVEL"),
    ("NB_MANAGEMENT_URL", "WT_MANAGEMENT_URL"),
    ("NB_MTU", "WT_MTU"),
    ("NB_PRESHARED_KEY", "WT_PRESHARED_KEY"),
    ("NB_SETUP_KEY", "WT_SETUP_KEY"),
    ("NB_SETUP_KEY_FILE", "WT_SETUP_KEY_FILE"),
    ("NB_WIREGUARD_PORT", "WT_WIREGUARD_PORT"),
];

/// The command with former names for those variables that are set by these only.
pub(crate) fn accept(command: Command) -> Command {
    command.mut_args(by_former_name).mut_subcommands(accept)
}

/// The former name of a variable, if it had one.
pub(crate) fn former(variable: &str) -> Option<&'static str> {
    FORMER.iter().find(|(name, _)| *name == variable).map(|(_, former)| *former)
}

fn by_former_name(arg: Arg) -> Arg {
    let former = arg.get_env().and_then(|name| name.to_str()).and_then(former);
    let is_set = |name: &str| std::env::var_os(name).is_some();
    match former {
        Some(former) if is_set(former) && !arg.get_env().and_then(|name| name.to_str()).is_some_and(is_set) => {
            arg.env(former)
        }
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_former_name_is_that_of_a_variable() {
        let command = Cli::command();
        let args: Vec<_> = command.get_subcommands().flat_map(Command::get_arguments).collect();
        for (name, former) in FORMER {
            assert!(args.iter().any(|arg| arg.get_env().is_some_and(|variable| variable == name)), "{name}");
            assert_eq!(former.replacen("WT_", "NB_", 1), name);
            // The official client makes the name of the flag's.
            let flag = name["NB_".len()..].to_lowercase().replace('_', "-");
            assert!(args.iter().any(|arg| arg.get_long() == Some(&flag)), "{flag}");
        }
    }
}
