//! `firn-s3-server <directory> [<address:port>] [--faults <file>] [--log <file>]`: an S3 server for
//! scripts. Prints the variables that a client needs, one `NAME=value` a line, then serves until it
//! is killed.

use firn_tests::StartError;

fn main() -> Result<(), StartError> {
    firn_tests::command::run(std::env::args_os().skip(1), &mut std::io::stdout())
}
