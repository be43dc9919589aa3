//! What an instance may hold: linear memory, tables, stack.

use std::ptr::NonNull;

use wasmer::sys::vm::{VMConfig, VMMemory, VMMemoryDefinition, VMTable, VMTableDefinition};
use wasmer::sys::{BaseTunables, Tunables};
use wasmer::{MemoryError, MemoryStyle, MemoryType, Pages, TableStyle, TableType, WASM_PAGE_SIZE};

use crate::guest::MAX_TABLE_ELEMENTS;

/// Behind a memory whose accesses are checked, for their constant offsets.
const NARROW_GUARD_BYTES: u64 = 64 << 10;

/// How a memory lies in the address space.
pub struct Styles {
    /// Whether it reserves all that a 32-bit pointer and an offset reach: 8 GiB.
    pub wide: bool,
}

impl Styles {
    /// The style that code is compiled for.
    pub fn memory_style(&self, _: &MemoryType) -> MemoryStyle {
        if self.wide {
            MemoryStyle::Static
        } else {
            MemoryStyle::Dynamic { offset_guard_size: NARROW_GUARD_BYTES }
        }
    }
}

/// The limits of one instance.
pub struct Limits {
    base: BaseTunables,
    memory_pages: Pages,
    config: VMConfig,
}

impl Limits {
    /// Of so many bytes of memory, in whole pages, and of stack.
    pub fn new(memory_bytes: u64, stack_bytes: usize) -> Self {
        let pages = (memory_bytes / WASM_PAGE_SIZE as u64).min(u64::from(Pages::max_value().0));
        Self {
            base: BaseTunables::new(),
            memory_pages: Pages(pages as u32),
            config: VMConfig { wasm_stack_size: Some(stack_bytes) },
        }
    }

    fn memory(&self, kind: &MemoryType) -> Result<MemoryType, MemoryError> {
        if kind.minimum > self.memory_pages {
            return Err(MemoryError::Generic(format!(
                "a memory that begins with {} pages; its limit is {}",
                kind.minimum.0, self.memory_pages.0
            )));
        }
        let maximum = kind.maximum.map_or(self.memory_pages, |own| own.min(self.memory_pages));
        Ok(MemoryType { maximum: Some(maximum), ..*kind })
    }

    fn table(kind: &TableType) -> Result<TableType, String> {
        if kind.minimum > MAX_TABLE_ELEMENTS {
            return Err(format!(
                "a table of {} elements; its limit is {MAX_TABLE_ELEMENTS}",
                kind.minimum
            ));
        }
        let maximum = kind.maximum.map_or(MAX_TABLE_ELEMENTS, |own| own.min(MAX_TABLE_ELEMENTS));
        Ok(TableType { maximum: Some(maximum), ..*kind })
    }
}

impl Tunables for Limits {
    fn memory_style(&self, kind: &MemoryType) -> MemoryStyle {
        self.base.memory_style(kind)
    }

    fn table_style(&self, kind: &TableType) -> TableStyle {
        self.base.table_style(kind)
    }

    fn create_host_memory(
        &self,
        kind: &MemoryType,
        style: &MemoryStyle,
    ) -> Result<VMMemory, MemoryError> {
        self.base.create_host_memory(&self.memory(kind)?, style)
    }

    unsafe fn create_vm_memory(
        &self,
        kind: &MemoryType,
        style: &MemoryStyle,
        place: NonNull<VMMemoryDefinition>,
    ) -> Result<VMMemory, MemoryError> {
        // SAFETY: `place` is Wasmer's, with its own promise about it; only the maximum changes.
        unsafe { self.base.create_vm_memory(&self.memory(kind)?, style, place) }
    }

    fn create_host_table(&self, kind: &TableType, style: &TableStyle) -> Result<VMTable, String> {
        self.base.create_host_table(&Self::table(kind)?, style)
    }

    unsafe fn create_vm_table(
        &self,
        kind: &TableType,
        style: &TableStyle,
        place: NonNull<VMTableDefinition>,
    ) -> Result<VMTable, String> {
        // SAFETY: as above.
        unsafe { self.base.create_vm_table(&Self::table(kind)?, style, place) }
    }

    fn vmconfig(&self) -> &VMConfig {
        &self.config
    }
}
