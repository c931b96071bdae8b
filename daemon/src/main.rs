//! The `nexcage` program: the daemon and the command line in one binary.

fn main() -> std::process::ExitCode {
    nexcage::main()
}
