use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// A system of files.
fn system() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    };
    write("etc/os-release", "PRETTY_NAME=\"Example 1\"\nNAME=\"Example Linux\"\nVERSION_ID='12'\nVERSION=\"12 (x)\"\n");
    write("sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
    write("sys/class/dmi/id/product_name", "t3.micro\n");
    write("sys/class/dmi/id/chassis_serial", "Default string\n");
    write("sys/class/dmi/id/product_serial", "ec2-1\n");
    write("proc/17/comm", "agent\n");
    symlink("/usr/bin/agent", root.path().join("proc/17/exe")).expect("a link");
    write("usr/bin/agent", "");
    write("usr/bin/idle", "");
    root
}

fn options(root: &Path) -> Options {
    Options { root: root.to_owned(), ..Options::default() }
}

#[tokio::test]
async fn the_server_is_told_what_it_asks_for() {
    let root = system();
    let checks = ["/usr/bin/agent", "/usr/bin/idle", "/none"].map(str::to_owned);
    let meta = gather(&options(root.path()), &checks).await;
    assert_eq!((&*meta.os, &*meta.os_version, &*meta.core), ("Example Linux", "12", "12"));
    assert_eq!((&*meta.sys_manufacturer, &*meta.sys_product_name), ("Amazon EC2", "t3.micro"));
    assert_eq!((&*meta.sys_serial_number, &*meta.environment.expect("one").cloud), ("ec2-1", "AWS"));
    let files: Vec<_> = meta.files.iter().map(|file| (&*file.path, file.exist, file.process_is_running)).collect();
    assert_eq!(files, [("/usr/bin/agent", true, true), ("/usr/bin/idle", true, false), ("/none", false, false)]);
    assert_eq!((&*meta.go_os, &*meta.kernel, &*meta.netbird_version), ("linux", "Linux", NETBIRD_VERSION));
    assert_eq!((meta.capabilities, meta.sync_message_version), (vec![1, 2], 0));
    assert!(!meta.hostname.is_empty() && !meta.kernel_version.is_empty() && !meta.platform.is_empty());
    // The server refuses the whole meta for one that is none.
    assert!(meta.network_addresses.iter().all(|address| address.net_ip.parse::<ipnet::IpNet>().is_ok()));
}

#[tokio::test]
async fn a_system_that_says_nothing_is_no_error() {
    let root = tempfile::tempdir().expect("a directory");
    let options = Options { hostname: Some("router".to_owned()), ipv6: false, ..options(root.path()) };
    let meta = gather(&options, &[]).await;
    assert_eq!((&*meta.hostname, &*meta.os, &*meta.os_version), ("router", "Linux", ""));
    assert_eq!((&*meta.sys_manufacturer, &*meta.sys_serial_number), ("", ""));
    assert_eq!((meta.capabilities, meta.files), (vec![1], vec![]));
}
