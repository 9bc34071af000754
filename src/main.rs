//! The `rekey` binary. Everything is in the library; this only turns its answer into an exit code.

fn main() -> std::process::ExitCode {
    rekey::cli::main()
}
