//! Makes a plugin of a module: the exports of the guest ABI instead of its own, methods that call
//! its functions, a memory if it has none. All that is added stands behind what is there, so
//! that no number in the module changes.

use wasm_encoder::{Encode, Function, Instruction, Module, RawSection};
use wasmparser::{
    ExternalKind, FuncType, GlobalType, Import, MemoryType, Parser, Payload, TableType, TypeRef,
    ValType,
};

const TYPE: u8 = 1; // sections: core specification, 5.5.2
const FUNCTION: u8 = 3;
const MEMORY: u8 = 5;
const GLOBAL: u8 = 6;
const EXPORT: u8 = 7;
const CODE: u8 = 10;
/// They stand in this order, not in that of their numbers.
const ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];

/// Where the guest's malloc always points to: a page has it.
const ROOM: i32 = 1024;

/// What a module has, imported things first.
#[derive(Default)]
pub struct Outline {
    pub types: Vec<FuncType>,
    /// Of each function its type.
    pub functions: Vec<u32>,
    pub globals: Vec<GlobalType>,
    pub tables: Vec<TableType>,
    pub memories: Vec<MemoryType>,
    pub imports: Vec<(String, String, Option<u32>)>,
    pub exports: Vec<(String, ExternalKind, u32)>,
    sections: Vec<(u8, Vec<u8>)>,
}

impl Outline {
    /// Of a valid module without types of later proposals.
    pub fn of(wasm: &[u8]) -> Result<Self, String> {
        Self::read(wasm).map_err(|error| error.to_string())
    }

    fn read(wasm: &[u8]) -> Result<Self, wasmparser::BinaryReaderError> {
        let mut found = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            if let Some((id, range)) = payload.as_section()
                && id != 0
            {
                let range = range.start as usize..range.end as usize;
                found.sections.push((id, wasm[range].to_vec()));
            }
            match payload {
                Payload::TypeSection(section) => {
                    for kind in section.into_iter_err_on_gc_types() {
                        found.types.push(kind?);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let Import { module, name, ty } = import?;
                        let function = match ty {
                            TypeRef::Func(kind) => {
                                found.functions.push(kind);
                                Some(kind)
                            }
                            TypeRef::Global(kind) => {
                                found.globals.push(kind);
                                None
                            }
                            TypeRef::Table(kind) => {
                                found.tables.push(kind);
                                None
                            }
                            TypeRef::Memory(kind) => {
                                found.memories.push(kind);
                                None
                            }
                            _ => None,
                        };
                        found.imports.push((module.to_owned(), name.to_owned(), function));
                    }
                }
                Payload::FunctionSection(section) => {
                    for kind in section {
                        found.functions.push(kind?);
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        found.tables.push(table?.ty);
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        found.memories.push(memory?);
                    }
                }
                Payload::GlobalSection(section) => {
                    for global in section {
                        found.globals.push(global?.ty);
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        found.exports.push((export.name.to_owned(), export.kind, export.index));
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The type of a function.
    pub fn function(&self, number: u32) -> Option<&FuncType> {
        self.types.get(*self.functions.get(number as usize)? as usize)
    }
}

/// A method to add: `plugin_NAME`, which takes the request's pointer and size.
pub struct Method {
    pub name: String,
    /// Behind the two of the request.
    pub locals: Vec<wasm_encoder::ValType>,
    /// Leaves an i64 on the stack.
    pub code: Vec<Instruction<'static>>,
}

/// The module as a plugin. Its memory has a page at least if `roomy`. `counters` mutable
/// globals are added, i64 and zero.
pub fn plugin(outline: &Outline, methods: &[Method], counters: u32, roomy: bool) -> Vec<u8> {
    let types = outline.types.len() as u32;
    let functions = outline.functions.len() as u32;
    let mut added: Vec<(&str, u32, Function)> = Vec::new();
    let simple = |code: &[Instruction<'_>]| {
        let mut body = Function::new([]);
        code.iter().for_each(|one| {
            body.instruction(one);
        });
        body.instruction(&Instruction::End);
        body
    };
    added.push(("plugin_api_version", types, simple(&[Instruction::I64Const(1)])));
    added.push(("malloc", types + 1, simple(&[Instruction::I32Const(ROOM)])));
    added.push(("free", types + 2, simple(&[])));
    let names: Vec<String> = methods.iter().map(|one| format!("plugin_{}", one.name)).collect();
    for (method, name) in methods.iter().zip(&names) {
        let mut body = Function::new_with_locals_types(method.locals.iter().copied());
        for one in &method.code {
            body.instruction(one);
        }
        body.instruction(&Instruction::End);
        added.push((name, types + 3, body));
    }

    let kinds = added.iter().map(|(_, kind, _)| encoded(kind)).collect::<Vec<_>>();
    let bodies = added.iter().map(|(_, _, body)| encoded(body)).collect::<Vec<_>>();
    let mut exports = vec![[encoded("memory"), vec![2], encoded(&0u32)].concat()];
    for (at, (name, _, _)) in added.iter().enumerate() {
        exports.push([encoded(*name), vec![0], encoded(&(functions + at as u32))].concat());
    }
    let counter = vec![0x7e, 1, 0x42, 0, 0x0b]; // (mut i64) (i64.const 0)
    let mut module = Module::new();
    for id in ORDER {
        let there = outline.sections.iter().find(|(section, _)| *section == id);
        let there = there.map(|(_, content)| content.as_slice());
        let data = match id {
            TYPE => Some(extended(
                there,
                &[
                    vec![0x60, 0, 1, 0x7e],
                    vec![0x60, 1, 0x7f, 1, 0x7f],
                    vec![0x60, 1, 0x7f, 0],
                    vec![0x60, 2, 0x7f, 0x7f, 1, 0x7e],
                ],
            )),
            FUNCTION => Some(extended(there, &kinds)),
            MEMORY => Some(memory(outline, there, roomy)),
            GLOBAL if counters > 0 => {
                Some(extended(there, &vec![counter.clone(); counters as usize]))
            }
            EXPORT => Some(extended(None, &exports)),
            CODE => Some(extended(there, &bodies)),
            _ => there.map(<[u8]>::to_vec),
        };
        if let Some(data) = data {
            module.section(&RawSection { id, data: &data });
        }
    }
    module.finish()
}

fn memory(outline: &Outline, there: Option<&[u8]>, roomy: bool) -> Vec<u8> {
    match (outline.memories.first(), there) {
        (Some(kind), Some(there)) if !roomy || kind.initial > 0 => there.to_vec(),
        (found, _) => {
            let mut content = vec![1]; // one memory, of a page
            match found.and_then(|kind| kind.maximum) {
                None => content.extend([0, 1]),
                Some(maximum) => {
                    content.extend([1, 1]);
                    (maximum.max(1) as u32).encode(&mut content);
                }
            }
            content
        }
    }
}

/// A section's list with more entries.
fn extended(there: Option<&[u8]>, more: &[Vec<u8>]) -> Vec<u8> {
    let there = there.unwrap_or(&[0]);
    let size = there.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let count = there[..size].iter().rev().fold(0, |sum, byte| sum << 7 | u32::from(byte & 0x7f));
    let mut content = encoded(&(count + more.len() as u32));
    content.extend(&there[size..]);
    more.iter().for_each(|one| content.extend(one));
    content
}

fn encoded(what: &(impl Encode + ?Sized)) -> Vec<u8> {
    let mut bytes = Vec::new();
    what.encode(&mut bytes);
    bytes
}

/// What leaves nothing, or zero, of this type on the stack; None: nothing can.
pub fn zero(kind: ValType) -> Option<Instruction<'static>> {
    Some(match kind {
        ValType::I32 => Instruction::I32Const(0),
        ValType::I64 => Instruction::I64Const(0),
        ValType::F32 => Instruction::F32Const(0f32.into()),
        ValType::F64 => Instruction::F64Const(0f64.into()),
        ValType::V128 => Instruction::V128Const(0),
        ValType::FUNCREF => Instruction::RefNull(wasm_encoder::HeapType::FUNC),
        ValType::EXTERNREF => Instruction::RefNull(wasm_encoder::HeapType::EXTERN),
        ValType::Ref(_) => return None,
    })
}
