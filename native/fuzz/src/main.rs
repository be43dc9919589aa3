//! Modules for the tests of edge-agent's engines, each in the shape of a plugin.
//!
//!     edge-agent-fuzz modules SEED COUNT   random modules of SEED, SEED + 1, ..., on stdout: for
//!                                          each its size in 8 bytes, little endian, and itself
//!     edge-agent-fuzz spec FOLDER          the official test suite, into a new folder: modules,
//!                                          and `manifest`, whose lines `spec.rs` explains

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

mod random;
mod shape;
mod spec;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["modules", seed, count] => match (seed.parse(), count.parse()) {
            (Ok(seed), Ok(count)) => modules(seed, count),
            _ => Err("SEED and COUNT are numbers".to_owned()),
        },
        ["spec", folder] => spec::write(Path::new(folder)),
        _ => Err("usage: edge-agent-fuzz modules SEED COUNT | spec FOLDER".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(says) => {
            eprintln!("edge-agent-fuzz: {says}");
            ExitCode::FAILURE
        }
    }
}

fn modules(seed: u64, count: u64) -> Result<(), String> {
    let mut out = io::stdout().lock();
    for number in 0..count {
        let wasm = random::module(seed.wrapping_add(number))?;
        let size = (wasm.len() as u64).to_le_bytes();
        let written = out.write_all(&[&size, wasm.as_slice()].concat()).and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(|error| error.to_string())?,
        }
    }
    Ok(())
}
