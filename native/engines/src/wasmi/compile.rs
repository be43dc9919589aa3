//! Checking a module. An artifact is a mark, and the module as the interpreter takes it: without
//! custom sections, its start function exported instead of run by the engine, whose own way to
//! run a start function cannot be interrupted.

use wasmi::{CompilationMode, Config, CustomFuelCosts, Engine, Module};
use wasmparser::{Parser, Payload};

use crate::guest::{Failure, MAX_TABLES};

/// The version of wasmi, as in Cargo.toml.
pub const VERSION: &str = "2.0.0";
/// What an artifact begins with; then `LAZY` or `EAGER`, then the module.
pub const MAGIC: &[u8] = b"edge-agent wasmi 1\n";
/// Functions are translated when they are first called.
pub const LAZY: u8 = b'l';
/// All functions are translated where the module is loaded.
pub const EAGER: u8 = b'e';
/// The export that was the start function.
pub const START: &str = "edge-agent:start";

const EXPORT_SECTION: u8 = 7; // core specification, 5.5.2
const FUNCTION_EXPORT: u8 = 0; // 5.5.10
const HEADER_BYTES: usize = 8; // magic and version of a module

/// Of the value stack at first; the interpreter lets it grow up to its limit.
const MIN_STACK_BYTES: usize = 4 << 10;
/// A call takes so much of a guest's stack at least. wasmi counts calls apart from the values
/// that they hold, so that a recursion without locals ends here and not in the process's memory.
const CALL_BYTES: usize = 64;

/// The largest function that may be translated within a call: 8 ms of a fast processor (measured:
/// 30 MB a second), 0.1 s of a slow one. No time is looked at meanwhile.
const MAX_LAZY_BYTES: usize = 256 << 10;
/// As wasmi's own, but that translating costs no fuel: a call that begins with that could not be
/// resumed when its fuel ran out there.
const FUEL_COSTS: CustomFuelCosts = CustomFuelCosts {
    bytes_copied_per_fuel: 64,
    fuel_per_bytes_translated: 0,
    fuel_per_bytes_validated: 0,
};

/// All that an artifact depends on beside module and version.
pub fn settings() -> &'static str {
    "deterministic,simd,start=1"
}

/// An engine for guests with so much stack.
pub fn engine(stack_bytes: usize, mode: CompilationMode) -> Engine {
    let mut config = Config::default();
    // What the agent's reader of modules knows, as for the other engines.
    config
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false)
        .consume_fuel(true)
        .fuel_cost(FUEL_COSTS)
        .ignore_custom_sections(true)
        .compilation_mode(mode)
        .set_min_stack_height(MIN_STACK_BYTES.min(stack_bytes))
        .set_max_stack_height(stack_bytes)
        .set_max_recursion_depth(stack_bytes / CALL_BYTES)
        .set_max_cached_stacks(1);
    Engine::new(&config)
}

/// An artifact of a module.
///
/// All code is translated here once: what the interpreter cannot translate is refused, and not
/// found out by a guest that runs.
pub fn compile(wasm: &[u8]) -> Result<Vec<u8>, Failure> {
    Module::new(&engine(MIN_STACK_BYTES, CompilationMode::Eager), wasm)
        .map_err(|error| Failure::Module(format!("not valid Wasm: {error}")))?;
    let mut artifact = MAGIC.to_vec();
    rewrite(wasm, &mut artifact)
        .map_err(|error| Failure::Module(format!("not valid Wasm: {error}")))??;
    Ok(artifact)
}

/// The sections of a valid module that the interpreter needs.
fn rewrite(
    wasm: &[u8],
    written: &mut Vec<u8>,
) -> Result<Result<(), Failure>, wasmparser::BinaryReaderError> {
    let mut start = None;
    let (mut tables, mut exported, mut mode) = (0, false, LAZY);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TableSection(section) => tables += section.count() as usize,
            Payload::ExportSection(section) => {
                exported = true;
                for export in section {
                    if export?.name == START {
                        let says = format!("it exports {START}, a name of the agent's own");
                        return Ok(Err(Failure::Module(says)));
                    }
                }
            }
            Payload::StartSection { func, .. } => start = Some(func),
            Payload::CodeSectionEntry(body) if body.range().len() > MAX_LAZY_BYTES => mode = EAGER,
            _ => {}
        }
    }
    if tables > MAX_TABLES {
        let says = format!("it has {tables} tables; a plugin may have {MAX_TABLES}");
        return Ok(Err(Failure::Module(says)));
    }
    written.push(mode);
    written.extend(&wasm[..HEADER_BYTES]);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::CustomSection(_) => {}
            Payload::StartSection { func, .. } => {
                if !exported {
                    section(written, EXPORT_SECTION, &[&[1], entry(func).as_slice()]);
                }
            }
            Payload::ExportSection(exports) if start.is_some() => {
                let mut count = Vec::new();
                push(&mut count, exports.count() + 1);
                let entries = skip_count(&wasm[exports.range()]);
                let added = start.map(entry).unwrap_or_default();
                section(written, EXPORT_SECTION, &[&count, entries, &added]);
            }
            other => {
                if let Some((id, range)) = other.as_section() {
                    section(written, id, &[&wasm[range]]);
                }
            }
        }
    }
    Ok(Ok(()))
}

/// The export of the start function.
fn entry(function: u32) -> Vec<u8> {
    let mut entry = Vec::new();
    push(&mut entry, START.len() as u32);
    entry.extend(START.as_bytes());
    entry.push(FUNCTION_EXPORT);
    push(&mut entry, function);
    entry
}

fn section(written: &mut Vec<u8>, id: u8, parts: &[&[u8]]) {
    written.push(id);
    push(written, parts.iter().map(|part| part.len() as u32).sum());
    parts.iter().for_each(|part| written.extend(*part));
}

/// What follows the number that a section's content begins with.
fn skip_count(content: &[u8]) -> &[u8] {
    let size = content.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    &content[size..]
}

/// An unsigned LEB128.
fn push(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
