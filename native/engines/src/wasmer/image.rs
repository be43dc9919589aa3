//! The memory that a module begins with: taken out of the module, kept behind the artifact's
//! code, and mapped into each instance, so that pages which nobody writes are no instance's own.
//!
//! An artifact is then: ELF image, zeros up to a whole page, the pages, their numbers (u32), and
//! at its very end how many there are (u32), where they begin (u64) and `MAGIC`. In the byte
//! order of the machine, which alone can run it. Pages are Wasm's: no machine's are larger.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use wasmer::WASM_PAGE_SIZE as PAGE;
use wasmer::sys::wasmparser::{BinaryReader, DataKind, DataSectionReader, Operator};

const MAGIC: &[u8; 8] = b"edgedata";
const END: usize = 4 + 8 + MAGIC.len();
const HEADER: usize = 8; // of a module
const DATA_SECTION: u8 = 11;
const DATA_COUNT_SECTION: u8 = 12; // without it no code names a segment

/// The pages that are not all zeros, by their number.
pub type Pages = BTreeMap<u32, Vec<u8>>;

/// A valid module without its data, and what that was; None: it is not all plain data within the
/// memory's first `pages`, and stays where it is.
pub fn taken(wasm: &[u8], pages: u32) -> Option<(Vec<u8>, Pages)> {
    let mut at = HEADER;
    let mut named = false;
    while at < wasm.len() {
        let begins = at + 1;
        let mut reader = BinaryReader::new(&wasm[begins..], 0);
        let size = reader.read_var_u32().ok()? as usize;
        let content = begins + reader.current_position();
        named |= wasm[at] == DATA_COUNT_SECTION;
        if wasm[at] == DATA_SECTION {
            let (mut emptied, found) = emptied(&wasm[content..content + size], pages)?;
            if !named {
                emptied = vec![0]; // of Go's 30,000 each would take memory
            }
            let mut module = wasm[..at].to_vec();
            module.push(DATA_SECTION);
            push_unsigned(&mut module, emptied.len() as u32);
            module.extend(emptied);
            module.extend(&wasm[content + size..]);
            return Some((module, found));
        }
        at = content + size;
    }
    None
}

fn emptied(section: &[u8], pages: u32) -> Option<(Vec<u8>, Pages)> {
    let reader = DataSectionReader::new(BinaryReader::new(section, 0)).ok()?;
    let mut left = Vec::new();
    push_unsigned(&mut left, reader.count());
    let mut found = Pages::new();
    for segment in reader {
        let segment = segment.ok()?;
        let DataKind::Active { memory_index: 0, offset_expr } = segment.kind else {
            return None;
        };
        let mut operators = offset_expr.get_operators_reader();
        let (Operator::I32Const { value }, Operator::End) =
            (operators.read().ok()?, operators.read().ok()?)
        else {
            return None;
        };
        left.extend([0, 0x41]); // active, i32.const
        push_signed(&mut left, value);
        left.extend([0x0b, 0]); // end; no bytes
        let mut place = value.cast_unsigned() as usize;
        if place + segment.data.len() > pages as usize * PAGE {
            return None; // it traps
        }
        let mut rest = segment.data;
        while !rest.is_empty() {
            let (page, within) = (place / PAGE, place % PAGE);
            let (part, after) = rest.split_at(rest.len().min(PAGE - within));
            let filled = found.entry(page as u32).or_insert_with(|| vec![0; PAGE]);
            filled[within..within + part.len()].copy_from_slice(part);
            (place, rest) = (place + part.len(), after);
        }
    }
    found.retain(|_, page| page.iter().any(|byte| *byte != 0));
    Some((left, found))
}

fn push_unsigned(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn push_signed(bytes: &mut Vec<u8>, mut value: i32) {
    while !(-0x40..0x40).contains(&value) {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8 & 0x7f);
}

/// Put the pages behind an ELF image.
pub fn append(artifact: &mut Vec<u8>, pages: &Pages) {
    if !pages.is_empty() {
        artifact.resize(artifact.len().next_multiple_of(PAGE), 0);
    }
    let begin = artifact.len() as u64;
    pages.values().for_each(|page| artifact.extend(page));
    pages.keys().for_each(|number| artifact.extend(number.to_ne_bytes()));
    artifact.extend((pages.len() as u32).to_ne_bytes());
    artifact.extend(begin.to_ne_bytes());
    artifact.extend(MAGIC);
}

/// Neighbouring pages: the first one's number, how many, and where they lie in the file.
struct Run {
    page: usize,
    count: usize,
    place: u64,
}

/// The pages in the file of an artifact.
pub struct Image {
    file: File,
    runs: Vec<Run>,
}

impl Image {
    /// Those of this artifact, if it has any.
    pub fn find(file: File) -> io::Result<Option<Self>> {
        let damaged = || io::Error::other("the memory in it is damaged");
        let size = file.metadata()?.len();
        let mut end = [0; END];
        let end_at = size.checked_sub(END as u64).ok_or_else(damaged)?;
        file.read_exact_at(&mut end, end_at)?;
        let mut runs: Vec<Run> = Vec::new();
        let sizes = end.strip_suffix(MAGIC).ok_or_else(damaged)?;
        let (count, begin) = sizes.split_at(4);
        let count = u32::from_ne_bytes(count.try_into().map_err(|_| damaged())?);
        let begin = u64::from_ne_bytes(begin.try_into().map_err(|_| damaged())?);
        let bytes = u64::from(count) * (PAGE as u64 + 4);
        let unaligned = count > 0 && begin % PAGE as u64 != 0;
        if unaligned || begin.checked_add(bytes) != Some(end_at) {
            return Err(damaged());
        }
        let mut numbers = vec![0; count as usize * 4];
        file.read_exact_at(&mut numbers, begin + u64::from(count) * PAGE as u64)?;
        let (numbers, _) = numbers.as_chunks::<4>();
        for (at, number) in numbers.iter().enumerate() {
            let page = u32::from_ne_bytes(*number) as usize;
            match runs.last_mut() {
                Some(run) if run.page + run.count == page => run.count += 1,
                _ => runs.push(Run { page, count: 1, place: begin + (at * PAGE) as u64 }),
            }
        }
        Ok((!runs.is_empty()).then_some(Self { file, runs }))
    }

    /// Let a memory, at `base` and of `size` bytes, begin with these pages.
    ///
    /// # Safety
    ///
    /// `base` is where a linear memory of Wasmer's begins, of which `size` bytes are accessible
    /// and to which there is no reference.
    pub unsafe fn place(&self, base: *mut u8, size: u64) -> io::Result<()> {
        for run in &self.runs {
            if ((run.page + run.count) * PAGE) as u64 > size {
                return Err(io::Error::other("the memory is smaller than what belongs into it"));
            }
            // SAFETY: the range lies within the memory, whose pages are its own mapping; it gets
            // other content and keeps its protection. Wasmer unmaps it with the rest.
            let mapped = unsafe {
                libc::mmap(
                    base.add(run.page * PAGE).cast(),
                    run.count * PAGE,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_FIXED,
                    self.file.as_raw_fd(),
                    run.place.cast_signed(),
                )
            };
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}
