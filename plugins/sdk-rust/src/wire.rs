//! Protocol Buffers by hand: a reader that walks a message in place and takes no memory, and a
//! writer that appends and never ends the program when there is no memory.
//!
//! Malformed bytes end a walk and set the message's [`Fault`], which becomes an error reply: no
//! call site has to check. Where a field that is not repeated occurs twice, the last one counts.

use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

/// Whether something malformed was read since the call began.
#[derive(Debug, Default)]
pub struct Fault(Cell<bool>);

impl Fault {
    pub const fn new() -> Self {
        Self(Cell::new(false))
    }

    pub fn set(&self) {
        self.0.set(true);
    }

    pub fn is_set(&self) -> bool {
        self.0.get()
    }
}

/// What a field holds, as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message, one after the other.
#[derive(Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
    fault: &'a Fault,
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8], fault: &'a Fault) -> Self {
        Self {
            rest: message,
            fault,
        }
    }

    pub(crate) fn fault(&self) -> &'a Fault {
        self.fault
    }

    fn field(&mut self) -> Option<(u32, Content<'a>)> {
        let tag = u32::try_from(take_varint(&mut self.rest)?).ok()?;
        let content = match tag & 7 {
            0 => Content::Varint(take_varint(&mut self.rest)?),
            1 => Content::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let size = take_varint(&mut self.rest)?;
                Content::Bytes(self.take(usize::try_from(size).ok()?)?)
            }
            5 => Content::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None, // groups: proto3 has none
        };
        (tag >= 8).then_some((tag >> 3, content))
    }

    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Content<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
            self.fault.set();
        }
        field
    }
}

/// Takes a number off the front; `None` unless it is whole and fits 64 bits.
pub fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (at, &byte) in rest.iter().enumerate().take(10) {
        if at == 9 && byte > 1 {
            return None; // more than 64 bits
        }
        value |= u64::from(byte & 0x7F) << (7 * at);
        if byte < 0x80 {
            *rest = rest.get(at + 1..)?;
            return Some(value);
        }
    }
    None
}

/// Bytes that grow. Where memory runs out it takes nothing more and is full.
#[derive(Debug, Default)]
pub struct Buf {
    bytes: Vec<u8>,
    full: bool,
    fault: Fault,
}

impl Buf {
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            full: false,
            fault: Fault::new(),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Memory ran out.
    pub fn is_full(&self) -> bool {
        self.full
    }

    pub(crate) fn fault(&self) -> &Fault {
        &self.fault
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.full = self.full || self.bytes.try_reserve(bytes.len()).is_err();
        if !self.full {
            self.bytes.extend_from_slice(bytes);
        }
    }

    pub fn put_varint(&mut self, mut value: u64) {
        while value > 0x7F {
            self.put(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.put(&[value as u8]);
    }

    pub fn put_tag(&mut self, number: u32, wire: u32) {
        self.put_varint(u64::from(number) << 3 | u64::from(wire));
    }

    /// A number, a truth or an enumeration; negative ones as the 64 bits that they are.
    pub fn put_number(&mut self, number: u32, value: u64) {
        self.put_tag(number, 0);
        self.put_varint(value);
    }

    /// Text, bytes or a message.
    pub fn put_bytes(&mut self, number: u32, bytes: &[u8]) {
        self.put_tag(number, 2);
        self.put_varint(bytes.len() as u64);
        self.put(bytes);
    }

    pub fn put_message(&mut self, number: u32, message: &Buf) {
        self.full |= message.full;
        self.put_bytes(number, message.bytes());
    }
}

impl Clone for Buf {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.put(&self.bytes);
        copy.full |= self.full;
        copy
    }
}

impl fmt::Write for Buf {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}
