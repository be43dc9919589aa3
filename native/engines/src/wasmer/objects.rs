//! What Wasmer's linker is given for a module, in the form that wasmer-compiler 7.4.2 gives it:
//! one object for each function and trampoline, and one that says where all of them are.

use object::write::{
    Object, Relocation, SectionId, StandardSection, StandardSegment, Symbol, SymbolSection,
};
use object::{
    RelocationEncoding, RelocationFlags, RelocationKind, SectionFlags, SectionKind, SymbolFlags,
    SymbolKind, SymbolScope, elf,
};
use wasmer::{FunctionType, LocalFunctionIndex};
use wasmer_compiler::dwarf::init_dwarf_unit;
use wasmer_compiler::elf::{add_relocations, emit_function_body, emit_trap_section};
use wasmer_compiler::misc::{CompiledFunctionExt, CompiledKind};
use wasmer_compiler::object::get_object_for_target;
use wasmer_compiler::types::function::{CompiledFunction, RkyvCompilation};
use wasmer_compiler::types::module::CompileModuleInfo;
use wasmer_compiler::{
    EH_FRAME_SECTION_NAME, WASMER_FUNCTION_OFFSETS_SECTION_NAME, WASMER_MODULE_INFO_SECTION_NAME,
    WASMER_TRAP_FUNCTION_OFFSETS_SECTION_NAME, WasmSourceMap,
};
use wasmer_types::entity::EntityRef;
use wasmer_types::target::Target;
use wasmer_types::{CompileError, FunctionIndex, SignatureIndex};

const PRODUCER: &str = "Wasmer (Cranelift)";
const POINTER: [u8; 8] = [0; 8]; // of all targets

/// Says which step failed.
pub fn failed(step: &str, error: impl std::fmt::Display) -> CompileError {
    CompileError::Codegen(format!("{step}: {error}"))
}

/// The objects in the order in which they are linked.
pub fn objects(
    target: &Target,
    info: &CompileModuleInfo,
    blob: &[u8],
    code: &RkyvCompilation,
    sources: &WasmSourceMap,
) -> Result<Vec<Vec<u8>>, CompileError> {
    let mut all = Vec::new();
    let (mut places, mut traps) = (Vec::new(), Vec::new());
    for (index, function) in code.functions.iter() {
        let kind = local(index);
        all.push(of_function(target, info, index, function, sources)?);
        traps.push(kind.traps_name());
        places.push(kind.linkage_name());
    }
    let none = || FunctionType::new([], []);
    let calls = code.function_call_trampolines.iter().map(|(index, body)| {
        (CompiledKind::FunctionCallTrampoline(SignatureIndex::new(index.index()), none()), body)
    });
    let dynamic = code.dynamic_function_trampolines.iter().map(|(index, body)| {
        (CompiledKind::DynamicFunctionTrampoline(FunctionIndex::new(index.index()), none()), body)
    });
    for (kind, body) in calls.chain(dynamic) {
        all.push(emit_function_body(target, &kind, body)?);
        places.push(kind.linkage_name());
    }
    all.push(of_places(target, blob, &places, &traps)?);
    Ok(all)
}

fn local(index: LocalFunctionIndex) -> CompiledKind {
    CompiledKind::Local(index, String::new())
}

fn new(target: &Target) -> Result<Object<'static>, CompileError> {
    get_object_for_target(target.triple()).map_err(|error| failed("an object", error))
}

fn of_function(
    target: &Target,
    info: &CompileModuleInfo,
    index: LocalFunctionIndex,
    function: &CompiledFunction,
    sources: &WasmSourceMap,
) -> Result<Vec<u8>, CompileError> {
    let kind = local(index);
    let code = &function.body.body;
    let mut object = new(target)?;
    let symbol = object.add_symbol(Symbol {
        size: code.len() as u64,
        ..undefined(kind.linkage_name(), SymbolKind::Text, SymbolScope::Linkage)
    });
    let text = object.section_id(StandardSection::Text);
    object.add_symbol_data(symbol, text, code, 16);
    add_relocations(&mut object, text, &function.relocations, Some((index, symbol)))?;

    let module = &info.module;
    let name = module.get_function_name(module.func_index(index));
    let mut lines = init_dwarf_unit(&name, module.name.as_deref(), PRODUCER)?;
    for instruction in &function.frame_info.address_map.instructions {
        let offset = instruction.code_offset as u64;
        lines.add_source_map_row(offset, instruction.srcloc, sources);
    }
    let endianness = target.triple().endianness().ok();
    lines.write_sections(&mut object, symbol, code.len() as u64, endianness)?;
    emit_trap_section(&mut object, &kind, &function.frame_info.traps);
    object.write().map_err(|error| failed("an object", error))
}

/// What is known of the module, and the tables of its functions and of their traps.
fn of_places(
    target: &Target,
    blob: &[u8],
    places: &[String],
    traps: &[String],
) -> Result<Vec<u8>, CompileError> {
    let mut object = new(target)?;
    let known = kept(&mut object, WASMER_MODULE_INFO_SECTION_NAME);
    object.append_section_data(known, blob, 8);
    // Ends the list of all frames.
    let debug = object.segment_name(StandardSegment::Debug).to_vec();
    let frames = object.add_section(debug, EH_FRAME_SECTION_NAME.to_vec(), SectionKind::Debug);
    object.append_section_data(frames, &[0; 8], 4);
    let section = kept(&mut object, WASMER_FUNCTION_OFFSETS_SECTION_NAME);
    for name in places {
        let symbol = undefined(name.clone(), SymbolKind::Text, SymbolScope::Unknown);
        point(&mut object, section, symbol)?;
    }
    let section = kept(&mut object, WASMER_TRAP_FUNCTION_OFFSETS_SECTION_NAME);
    for name in traps {
        let symbol = undefined(name.clone(), SymbolKind::Data, SymbolScope::Linkage);
        point(&mut object, section, Symbol { weak: true, ..symbol })?;
    }
    object.write().map_err(|error| failed("the module's object", error))
}

/// A section that the linker keeps although nothing refers to it.
fn kept(object: &mut Object<'static>, name: &[u8]) -> SectionId {
    let segment = object.segment_name(StandardSegment::Data).to_vec();
    let section = object.add_section(segment, name.to_vec(), SectionKind::Other);
    object.section_mut(section).flags =
        SectionFlags::Elf { sh_type: elf::SHT_PROGBITS, sh_flags: elf::SHF_GNU_RETAIN };
    section
}

fn undefined(name: String, kind: SymbolKind, scope: SymbolScope) -> Symbol {
    Symbol {
        name: name.into_bytes(),
        value: 0,
        size: 0,
        kind,
        scope,
        weak: false,
        section: SymbolSection::Undefined,
        flags: SymbolFlags::None,
    }
}

/// Append the address of a symbol to a table.
fn point(
    object: &mut Object<'static>,
    section: SectionId,
    symbol: Symbol,
) -> Result<(), CompileError> {
    let offset = object.append_section_data(section, &POINTER, POINTER.len() as u64);
    let symbol = object.add_symbol(symbol);
    let flags = RelocationFlags::Generic {
        kind: RelocationKind::Absolute,
        encoding: RelocationEncoding::Generic,
        size: 8 * POINTER.len() as u8,
    };
    object
        .add_relocation(section, Relocation { offset, flags, symbol, addend: 0 })
        .map_err(|error| failed("a table", error))
}
