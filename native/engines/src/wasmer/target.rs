//! Processors that code is made for: the least that each kind of them can do, and Wasmer's
//! compiler made to serve those that are not this machine's.
//!
//! Wasmer links with the emulation of the machine that it runs on, whatever the code is for.
//! So its compiler gives functions here, and they are written and linked as it would have done
//! (`objects`, `link`). For the machine's own processor both ways give the same bytes (tests.rs).

use std::str::FromStr;
use std::sync::Arc;

use wasmer::CompileError;
use wasmer::sys::{CompilerConfig, Features, ModuleMiddleware};
use wasmer_compiler::types::function::Compilation;
use wasmer_compiler::types::module::CompileModuleInfo;
use wasmer_compiler::{Compiler, FunctionBodyData, ModuleTranslationState, WasmSourceMap};
use wasmer_compiler_cranelift::Cranelift;
use wasmer_types::entity::PrimaryMap;
use wasmer_types::target::{CpuFeature, Target, Triple};
use wasmer_types::{CompilationProgressCallback, LocalFunctionIndex};

use super::link::link;
use super::objects::{failed, objects};

/// A kind of processor.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// As Linux calls it (uname -m).
    pub name: &'static str,
    triple: &'static str,
    emulation: &'static str,
    /// Its number in the header of an ELF image.
    pub machine: u16,
    /// What code for all of them may use beyond the architecture's own minimum.
    pub features: &'static [&'static str],
}

/// All that there is code for.
pub const KINDS: [Kind; 3] = [
    Kind {
        name: "x86_64",
        triple: "x86_64-unknown-linux-gnu",
        emulation: "elf_x86_64",
        machine: 62,
        // x86-64-v2: of 2009 and later.
        features: &["popcnt", "sse2", "sse3", "sse4.1", "sse4.2", "ssse3"],
    },
    Kind {
        name: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        emulation: "aarch64elf",
        machine: 183,
        features: &["neon"],
    },
    Kind {
        name: "riscv64",
        triple: "riscv64gc-unknown-linux-gnu",
        emulation: "elf64lriscv",
        machine: 243,
        features: &[],
    },
];

impl Kind {
    /// The one with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }

    /// The one of this machine.
    pub fn here() -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.is_here())
    }

    /// Whether this machine runs its code.
    pub fn is_here(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    /// As Wasmer has it.
    pub fn target(&self) -> Result<Target, String> {
        let triple = Triple::from_str(self.triple).map_err(|error| error.to_string())?;
        let mut features = CpuFeature::set();
        for name in self.features {
            features.insert(CpuFeature::from_str(name).map_err(|error| error.to_string())?);
        }
        Ok(Target::new(triple, features))
    }
}

/// What this machine's processor can do, of what Wasmer asks for.
pub fn features_here() -> Vec<String> {
    let mut found: Vec<String> =
        CpuFeature::for_host().iter().map(|feature| feature.to_string()).collect();
    found.sort();
    found
}

/// Cranelift for a processor of this kind.
#[derive(Debug)]
pub struct Foreign(pub Cranelift, pub &'static Kind);

impl CompilerConfig for Foreign {
    fn compiler(self: Box<Self>) -> Box<dyn Compiler> {
        let Self(config, kind) = *self;
        Box::new(ForeignCompiler { inner: CompilerConfig::compiler(Box::new(config)), kind })
    }

    fn supported_features_for_target(&self, target: &Target) -> Features {
        self.0.supported_features_for_target(target)
    }

    fn push_middleware(&mut self, middleware: Arc<dyn ModuleMiddleware>) {
        self.0.push_middleware(middleware);
    }
}

#[derive(Debug)]
struct ForeignCompiler {
    inner: Box<dyn Compiler>,
    kind: &'static Kind,
}

impl Compiler for ForeignCompiler {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn deterministic_id(&self) -> String {
        self.inner.deterministic_id()
    }

    fn get_middlewares(&self) -> &[Arc<dyn ModuleMiddleware>] {
        self.inner.get_middlewares()
    }

    fn compile_module(
        &self,
        target: &Target,
        info: &CompileModuleInfo,
        blob: &[u8],
        translation: &ModuleTranslationState,
        bodies: PrimaryMap<LocalFunctionIndex, FunctionBodyData<'_>>,
        progress: Option<&CompilationProgressCallback>,
    ) -> Result<Compilation, CompileError> {
        let sources = WasmSourceMap::new(&info.module, translation, &bodies)
            .map_err(|error| failed("line numbers", error))?;
        let made = self.inner.compile_module(target, info, blob, translation, bodies, progress)?;
        let Compilation::Rkyv { compilation, function_max_stack_usage } = made else {
            return Err(failed("compiling", "no functions came of it"));
        };
        let all = objects(target, info, blob, &compilation, &sources)?;
        Ok(Compilation::Elf { data: link(all, self.kind.emulation)?, function_max_stack_usage })
    }
}
