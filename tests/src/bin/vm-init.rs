//! `/init` of the virtual machines of `cargo xtask vmtest`.

fn main() -> std::io::Result<()> {
    peer_tests::guest::main()
}
