//! `firn-s3-server <directory> [<address:port>]`: an S3 server for scripts. Prints the variables
//! that a client needs, one `NAME=value` a line, then serves until it is killed.

use std::io::Write;
use std::path::PathBuf;

use firn_tests::{Server, StartError};

fn main() -> Result<(), StartError> {
    let mut arguments = std::env::args_os().skip(1);
    let root = PathBuf::from(
        arguments.next().ok_or("usage: firn-s3-server <directory> [<address:port>]")?,
    );
    let address = match arguments.next() {
        Some(address) => address.into_string().map_err(|_| "the address is not text")?.parse()?,
        None => ([127, 0, 0, 1], 0).into(),
    };
    let server = Server::start_on(&root, address)?;
    let mut out = std::io::stdout().lock();
    for (name, value) in server.variables() {
        writeln!(out, "{name}={value}")?;
    }
    writeln!(out, "FIRN_TEST_BUCKET={}", firn_tests::BUCKET)?;
    out.flush()?;
    drop(out);
    server.join();
    Ok(())
}
