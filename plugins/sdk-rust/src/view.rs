//! How fields of a message are read: typed, in place, and nothing before it is asked for.

use core::marker::PhantomData;

use crate::wire::{take_varint, Buf, Content, Fault, Fields};

/// A message as it came.
#[derive(Clone, Copy)]
pub struct View<'a> {
    bytes: &'a [u8],
    fault: &'a Fault,
}

impl<'a> View<'a> {
    pub fn new(bytes: &'a [u8], fault: &'a Fault) -> Self {
        Self { bytes, fault }
    }

    pub(crate) fn of(buf: &'a Buf) -> Self {
        Self::new(buf.bytes(), buf.fault())
    }

    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub fn fields(self) -> Fields<'a> {
        Fields::new(self.bytes, self.fault)
    }

    /// The field, or its type's zero value.
    pub fn one<T: Value<'a>>(self, number: u32) -> T {
        self.all(number)
            .last()
            .unwrap_or_else(|| T::zero(self.fault))
    }

    pub fn has(self, number: u32) -> bool {
        // All of it: what is malformed behind the field is so too.
        self.fields().filter(|field| field.0 == number).count() > 0
    }

    /// The value of a message of the Optional family; `None`: the field is absent.
    pub fn optional<T: Value<'a>>(self, number: u32) -> Option<T> {
        Some(self.all::<View>(number).last()?.one(1))
    }

    pub fn all<T: Value<'a>>(self, number: u32) -> Repeated<'a, T> {
        Repeated {
            fields: self.fields(),
            number,
            packed: &[],
            kind: PhantomData,
        }
    }

    pub fn map<K: Value<'a>, V: Value<'a>>(self, number: u32) -> Map<'a, K, V> {
        Map {
            message: self,
            number,
            kind: PhantomData,
        }
    }
}

/// A type that a field can have.
pub trait Value<'a>: Sized {
    /// `None`: the field has another type, and is as good as absent.
    fn read(content: Content<'a>, fault: &'a Fault) -> Option<Self>;

    /// What stands for an absent field.
    fn zero(fault: &'a Fault) -> Self;

    /// Of numbers only, many of which may stand in one field.
    const PACKED: bool = false;
}

impl<'a> Value<'a> for View<'a> {
    fn read(content: Content<'a>, fault: &'a Fault) -> Option<Self> {
        match content {
            Content::Bytes(bytes) => Some(Self::new(bytes, fault)),
            _ => None,
        }
    }

    fn zero(fault: &'a Fault) -> Self {
        Self::new(&[], fault)
    }
}

impl<'a> Value<'a> for &'a str {
    fn read(content: Content<'a>, fault: &'a Fault) -> Option<Self> {
        let Content::Bytes(bytes) = content else {
            return None;
        };
        let text = core::str::from_utf8(bytes).ok();
        if text.is_none() {
            fault.set();
        }
        text
    }

    fn zero(_: &'a Fault) -> Self {
        ""
    }
}

macro_rules! number {
    ($($kind:ty, $value:ident => $from:expr;)*) => { $(
        impl<'a> Value<'a> for $kind {
            fn read(content: Content<'a>, _: &'a Fault) -> Option<Self> {
                match content {
                    Content::Varint($value) => Some($from),
                    _ => None,
                }
            }

            fn zero(_: &'a Fault) -> Self {
                Self::default()
            }

            const PACKED: bool = true;
        }
    )* };
}

number! {
    bool, value => value != 0;
    i32, value => value as i32;
    u32, value => value as u32;
    i64, value => value as i64;
    u64, value => value;
}

macro_rules! enumeration {
    ($($kind:ident)*) => { $(
        impl<'a> $crate::view::Value<'a> for $kind {
            fn read(
                content: $crate::wire::Content<'a>,
                fault: &'a $crate::wire::Fault,
            ) -> Option<Self> {
                i32::read(content, fault).map(Self)
            }

            fn zero(_: &'a $crate::wire::Fault) -> Self {
                Self(0)
            }

            const PACKED: bool = true;
        }
    )* };
}
pub(crate) use enumeration;

/// The values of a repeated field, in their order.
#[derive(Clone)]
pub struct Repeated<'a, T> {
    fields: Fields<'a>,
    number: u32,
    packed: &'a [u8],
    kind: PhantomData<T>,
}

impl<'a, T: Value<'a>> Iterator for Repeated<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            if !self.packed.is_empty() {
                let Some(value) = take_varint(&mut self.packed) else {
                    self.packed = &[];
                    self.fields.fault().set();
                    continue;
                };
                return T::read(Content::Varint(value), self.fields.fault());
            }
            let (number, content) = self.fields.next()?;
            if number != self.number {
                continue;
            }
            match content {
                Content::Bytes(bytes) if T::PACKED => self.packed = bytes,
                content => {
                    if let Some(value) = T::read(content, self.fields.fault()) {
                        return Some(value);
                    }
                }
            }
        }
    }
}

/// A map; of a key that occurs twice the last value counts.
#[derive(Clone, Copy)]
pub struct Map<'a, K, V> {
    message: View<'a>,
    number: u32,
    kind: PhantomData<(K, V)>,
}

impl<'a, K: Value<'a> + 'a, V: Value<'a> + 'a> Map<'a, K, V> {
    pub fn get<Q>(self, key: Q) -> Option<V>
    where
        K: PartialEq<Q>,
    {
        self.iter()
            .filter(|entry| entry.0 == key)
            .last()
            .map(|entry| entry.1)
    }

    pub fn contains_key<Q>(self, key: Q) -> bool
    where
        K: PartialEq<Q>,
    {
        self.get(key).is_some()
    }

    /// All entries, in their order.
    pub fn iter(self) -> impl Iterator<Item = (K, V)> + 'a {
        let entries = self.message.all::<View>(self.number);
        entries.map(|entry| (entry.one(1), entry.one(2)))
    }
}
