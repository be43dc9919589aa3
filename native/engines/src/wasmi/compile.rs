//! Checking a module. An artifact is a mark, and the module as the interpreter takes it: without
//! custom sections, its start function exported instead of run by the engine, whose own way to
//! run a start function cannot be interrupted, and functions rewritten where wasmi is wrong about
//! them or their time (`body.rs`).

use wasmi::{CompilationMode, Config, CustomFuelCosts, Engine, Module, OperatorCost};
use wasmparser::{Parser, Payload, TypeRef};

use super::body::{NOP_FUEL, rewritten};
use super::grow::Growers;
use crate::guest::{Failure, MAX_TABLES, guarded};

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

const TYPE_SECTION: u8 = 1; // core specification, 5.5.2
const FUNCTION_SECTION: u8 = 3;
const EXPORT_SECTION: u8 = 7;
const CODE_SECTION: u8 = 10;
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
    "deterministic,simd,start=1,grow=1,select=1,locals=1,lanes=1"
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
        .operator_cost(OperatorCost { nop: NOP_FUEL, ..OperatorCost::default() })
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
    guarded(|| compiled(wasm)).unwrap_or_else(|says| Err(Failure::panic(&says)))
}

fn compiled(wasm: &[u8]) -> Result<Vec<u8>, Failure> {
    let engine = engine(MIN_STACK_BYTES, CompilationMode::Eager);
    let not_valid = |says: String| Failure::Module(format!("not valid Wasm: {says}"));
    // First, since the translator takes it that what it gets is valid to the end.
    Module::validate(&engine, wasm).map_err(|error| not_valid(error.to_string()))?;
    let mut artifact = MAGIC.to_vec();
    rewrite(wasm, &mut artifact).map_err(|error| not_valid(error.to_string()))??;
    // The interpreter has limits of its own, and a local or a function more may be one too many.
    Module::new(&engine, &artifact[MAGIC.len() + 1..])
        .map_err(|error| not_valid(error.to_string()))?;
    Ok(artifact)
}

/// The sections of a valid module that the interpreter needs.
fn rewrite(
    wasm: &[u8],
    written: &mut Vec<u8>,
) -> Result<Result<(), Failure>, wasmparser::BinaryReaderError> {
    let mut start = None;
    let (mut exported, mut mode) = (false, LAZY);
    // Of each type and of each function with code how many parameters it has.
    let (mut types, mut params) = (Vec::new(), Vec::new());
    let (mut imported, mut tables, mut bodies) = (0, Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::TypeSection(section) => {
                for kind in section.into_iter_err_on_gc_types() {
                    types.push(kind?.params().len() as u32);
                }
            }
            Payload::ImportSection(section) => {
                for import in section {
                    match import?.ty {
                        TypeRef::Func(_) => imported += 1,
                        TypeRef::Table(table) => tables.push(table),
                        _ => {}
                    }
                }
            }
            Payload::FunctionSection(section) => {
                for kind in section {
                    params.push(types.get(kind? as usize).copied().unwrap_or_default());
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    tables.push(table?.ty);
                }
            }
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
            Payload::CodeSectionEntry(body) => {
                if body.range().len() > MAX_LAZY_BYTES {
                    mode = EAGER;
                }
                bodies.push(body);
            }
            _ => {}
        }
    }
    if tables.len() > MAX_TABLES {
        let says = format!("it has {} tables; a plugin may have {MAX_TABLES}", tables.len());
        return Ok(Err(Failure::Module(says)));
    }
    let growers = Growers::new(types.len() as u32, imported + params.len() as u32, tables);
    let instead = bodies
        .iter()
        .zip(&params)
        .map(|(body, params)| rewritten(wasm, body, *params, &growers))
        .collect::<Result<Vec<_>, _>>()?;
    let changes = instead.iter().any(Option::is_some);
    written.push(mode);
    written.extend(&wasm[..HEADER_BYTES]);
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::CustomSection(_) | Payload::CodeSectionEntry(_) => {}
            Payload::TypeSection(section) if changes => {
                let old = &wasm[section.range()];
                extend(written, TYPE_SECTION, old, growers.count(), &growers.types());
            }
            Payload::FunctionSection(section) if changes => {
                let old = &wasm[section.range()];
                extend(written, FUNCTION_SECTION, old, growers.count(), &growers.functions());
            }
            Payload::CodeSectionStart { count, .. } if changes => {
                let mut code = Vec::new();
                push(&mut code, count + growers.count());
                for (body, new) in bodies.iter().zip(&instead) {
                    let new = new.as_deref().unwrap_or(&wasm[body.range()]);
                    push(&mut code, new.len() as u32);
                    code.extend(new);
                }
                section(written, CODE_SECTION, &[&code, &growers.code()]);
            }
            Payload::StartSection { func, .. } => {
                if !exported {
                    section(written, EXPORT_SECTION, &[&[1], entry(func).as_slice()]);
                }
            }
            Payload::ExportSection(exports) if start.is_some() => {
                let added = start.map(entry).unwrap_or_default();
                extend(written, EXPORT_SECTION, &wasm[exports.range()], 1, &added);
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

/// A section that is a list, with more entries.
fn extend(written: &mut Vec<u8>, id: u8, content: &[u8], more: u32, added: &[u8]) {
    let entries = skip_count(content);
    let number = &content[..content.len() - entries.len()];
    let old = number.iter().rev().fold(0, |sum, byte| sum << 7 | u32::from(byte & 0x7f));
    let mut count = Vec::new();
    push(&mut count, old + more);
    section(written, id, &[&count, entries, added]);
}

/// What follows the number that a list begins with.
pub fn skip_count(content: &[u8]) -> &[u8] {
    let size = content.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    &content[size..]
}

/// An unsigned LEB128.
pub fn push(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}
