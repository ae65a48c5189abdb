//! The process: its commands.

fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
