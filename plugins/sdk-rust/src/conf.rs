//! Configuration text: one setting in a line, `#` begins a comment.
//!
//! ```ignore
//! for line in conf::lines(request.config()) {
//!     let mut words = line.words();
//!     match words.next() {
//!         Some("limit") => ...,
//!         word => return Err(line.error(format_args!("unknown word {word:?}"))),
//!     }
//! }
//! ```

use core::fmt;

use crate::Error;

/// A line that says something: without its comment, trimmed, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// From 1.
    pub number: usize,
    pub text: &'a str,
}

impl<'a> Line<'a> {
    /// Its words, which blanks separate.
    pub fn words(self) -> impl Iterator<Item = &'a str> {
        self.text.split(BLANK).filter(|word| !word.is_empty())
    }

    /// An error that names the line.
    pub fn error(self, text: impl fmt::Display) -> Error {
        Error::new(format_args!("line {}: {text}", self.number))
    }
}

const BLANK: [char; 3] = [' ', '\t', '\r'];

pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.split('\n').zip(1..).filter_map(|(line, number)| {
        let mut end = line.len();
        for (at, _) in line.match_indices('#') {
            if at == 0 || line[..at].ends_with(BLANK) {
                end = at;
                break;
            }
        }
        let text = line[..end].trim_matches(BLANK);
        (!text.is_empty()).then_some(Line { number, text })
    })
}

/// Digits that fit 64 bits, and nothing else: no sign.
pub fn uint(text: &str) -> Option<u64> {
    digits(text, 10)
}

/// Digits of `base`, 2 to 36.
pub fn digits(text: &str, base: u32) -> Option<u64> {
    let mut value: u64 = 0;
    for letter in text.chars() {
        let digit = letter.to_digit(base)?;
        value = value.checked_mul(base.into())?.checked_add(digit.into())?;
    }
    (!text.is_empty()).then_some(value)
}

/// Bytes, with Kubernetes' suffixes: k M G T of 1000, Ki Mi Gi Ti of 1024. At most 2^63 - 1.
pub fn size(text: &str) -> Option<u64> {
    let (step, text): (u64, _) = match text.strip_suffix('i') {
        Some(rest) => (1024, rest),
        None => (1000, text),
    };
    let letter = text.chars().next_back()?;
    let power = "kmgt".find(letter.to_ascii_lowercase());
    let (unit, number) = match power {
        Some(power) => (step.pow(power as u32 + 1), text.get(..text.len() - 1)?),
        None if step == 1024 => return None,
        None => (1, text),
    };
    let bytes = uint(number)?.checked_mul(unit)?;
    (bytes <= i64::MAX as u64).then_some(bytes)
}

/// Thousandths of a CPU: "2", "0.5", "1.25" or "500m".
pub fn cpu(text: &str) -> Option<u64> {
    if let Some(milli) = text.strip_suffix('m') {
        return uint(milli);
    }
    let (whole, part) = match text.split_once('.') {
        Some((whole, part)) if part.len() <= 3 => {
            (whole, uint(part)? * 10_u64.pow(3 - part.len() as u32))
        }
        Some(_) => return None,
        None => (text, 0),
    };
    let whole = uint(whole)?;
    (whole <= 1_000_000).then(|| whole * 1000 + part)
}

/// `*` stands for any run of bytes, `?` for one.
pub fn glob(pattern: &str, text: &str) -> bool {
    glob_until(pattern, text, None)
}

/// With `stop` the pattern may also fit just what is before one: "/etc" with '/' fits "/etc/hosts".
///
/// A later star forgets an earlier one, so the work is at most pattern times text.
pub fn glob_until(pattern: &str, text: &str, stop: Option<u8>) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None; // after the last star, and where in the text its run ends
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
                continue;
            }
            Some(&letter) if letter == b'?' || letter == byte => {
                p += 1;
                t += 1;
                continue;
            }
            None if stop == Some(byte) => return true,
            _ => {}
        }
        let Some((after, end)) = &mut star else {
            return false;
        };
        *end += 1;
        (p, t) = (*after, *end);
    }
    pattern.iter().skip(p).all(|&letter| letter == b'*')
}
