//! What each function does to words.
//!
//! Integers wrap at 64 bits, as the dialect has it; quotients are cut towards zero. `None` means that the expression
//! fails and the row is dropped.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use dataflow_protocol::dictionary::{self, Entry};
use dataflow_protocol::plan::Func;
use dataflow_protocol::spelling;
use dataflow_protocol::value::{NIL, Type, Word, from_bool, from_float, from_number, to_float, to_number};

/// The longest text that concatenation makes, in bytes; a longer one fails.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Compiled patterns kept by a worker.
const MAX_PATTERNS: usize = 256;

/// Applies `func`, taken over `over`, to evaluated arguments.
pub(super) fn apply(func: Func, over: Type, args: &[Word]) -> Option<Word> {
    use Func::*;
    match func {
        Eq => Some(from_bool(args[0] == args[1])),
        Ne => Some(from_bool(args[0] != args[1])),
        Lt | Le | Gt | Ge => {
            let order = compare(over, args[0], args[1])?;
            Some(from_bool(match func {
                Lt => order.is_lt(),
                Le => order.is_le(),
                Gt => order.is_gt(),
                _ => order.is_ge(),
            }))
        }
        And => Some(args[0] & args[1]),
        Or => Some(args[0] | args[1]),
        Not => Some(args[0] ^ 1),
        Min | Max => extreme(func, over, args),
        Cat | Strlen | Substr | Contains | Match => text(func, args),
        ToNumber | ToUnsigned | ToFloat | ToSymbol => convert(func, over, args[0]),
        ToInstant => to_instant(over, args[0]),
        ToUuid => to_uuid(over, args[0]),
        ToBytes => to_bytes(over, args[0]),
        InstantAdd => later(args[0], to_number(args[1])),
        InstantSub => later(args[0], to_number(args[1]).checked_neg()?),
        InstantDiff => to_number(args[0]).checked_sub(to_number(args[1])).map(from_number),
        Nil => Some(NIL),
        Pack => pack(args),
        Unpack => {
            let words = of_branch(args[0], args[1])?;
            words.get(usize::try_from(args[2]).ok()?.checked_add(1)?).copied()
        }
        Is => Some(from_bool(of_branch(args[0], args[1]).is_some())),
        _ => match over {
            Type::Number => number(func, args).map(from_number),
            Type::Unsigned => unsigned(func, args),
            Type::Float => float(func, args).map(from_float),
            _ => None,
        },
    }
}

fn extreme(func: Func, over: Type, args: &[Word]) -> Option<Word> {
    let (&first, rest) = args.split_first()?;
    rest.iter().try_fold(first, |best, &word| {
        let order = compare(over, word, best)?;
        let better = if func == Func::Min { order.is_lt() } else { order.is_gt() };
        Some(if better { word } else { best })
    })
}

/// A branch, and its fields.
fn pack(words: &[Word]) -> Option<Word> {
    dictionary::check_record(words).ok()?;
    dictionary::intern(Entry::Record(words)).ok().map(|(word, _)| word)
}

/// The branch and the fields of a record, if it is of that branch.
fn of_branch(word: Word, branch: Word) -> Option<Arc<[Word]>> {
    dictionary::record(word).filter(|words| words.first() == Some(&branch))
}

/// The order of two values of a type; `None` where one isn't known.
pub(crate) fn compare(over: Type, left: Word, right: Word) -> Option<Ordering> {
    match over {
        Type::Symbol => {
            dictionary::with_text(left, |left| dictionary::with_text(right, |right| left.cmp(right)))?
        }
        Type::Uuid | Type::Bytes => {
            dictionary::with_bytes(left, |left| dictionary::with_bytes(right, |right| left.cmp(right)))?
        }
        _ => Some(left.cmp(&right)),
    }
}

/// An instant so many µs later.
fn later(word: Word, micros: i64) -> Option<Word> {
    spelling::instant(to_number(word).checked_add(micros)?).map(from_number)
}

fn to_instant(over: Type, word: Word) -> Option<Word> {
    match over {
        Type::Number => spelling::instant(to_number(word)).map(from_number),
        Type::Symbol => dictionary::with_text(word, spelling::parse_instant)?.map(from_number),
        _ => Some(word),
    }
}

fn to_uuid(over: Type, word: Word) -> Option<Word> {
    if over == Type::Uuid {
        return Some(word);
    }
    bytes(&dictionary::with_text(word, spelling::parse_uuid)??)
}

fn to_bytes(over: Type, word: Word) -> Option<Word> {
    // A uuid is its sixteen bytes.
    if over != Type::Symbol {
        return Some(word);
    }
    bytes(&dictionary::with_text(word, spelling::parse_bytes)??)
}

fn number(func: Func, args: &[Word]) -> Option<i64> {
    use Func::*;
    let a = to_number(args[0]);
    let b = args.get(1).map_or(0, |&word| to_number(word));
    Some(match func {
        Add => a.wrapping_add(b),
        Sub => a.wrapping_sub(b),
        Mul => a.wrapping_mul(b),
        Div if b != 0 => a.wrapping_div(b),
        Mod if b != 0 => a.wrapping_rem(b),
        Pow if b >= 0 => wrapping_pow(a as u64, b as u64) as i64,
        Neg => a.wrapping_neg(),
        Band => a & b,
        Bor => a | b,
        Bxor => a ^ b,
        Bnot => !a,
        Bshl => a.wrapping_shl(b as u32),
        Bshr => a.wrapping_shr(b as u32),
        Bshru => (a as u64).wrapping_shr(b as u32) as i64,
        Land => i64::from(a != 0 && b != 0),
        Lor => i64::from(a != 0 || b != 0),
        Lxor => i64::from((a != 0) != (b != 0)),
        Lnot => i64::from(a == 0),
        _ => return None,
    })
}

fn unsigned(func: Func, args: &[Word]) -> Option<u64> {
    use Func::*;
    let a = args[0];
    let b = args.get(1).copied().unwrap_or(0);
    Some(match func {
        Add => a.wrapping_add(b),
        Sub => a.wrapping_sub(b),
        Mul => a.wrapping_mul(b),
        Div if b != 0 => a / b,
        Mod if b != 0 => a % b,
        Pow => wrapping_pow(a, b),
        Band => a & b,
        Bor => a | b,
        Bxor => a ^ b,
        Bnot => !a,
        Bshl => a.wrapping_shl(b as u32),
        Bshr | Bshru => a.wrapping_shr(b as u32),
        Land => u64::from(a != 0 && b != 0),
        Lor => u64::from(a != 0 || b != 0),
        Lxor => u64::from((a != 0) != (b != 0)),
        Lnot => u64::from(a == 0),
        _ => return None,
    })
}

fn wrapping_pow(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = 1u64;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        exponent >>= 1;
    }
    result
}

fn float(func: Func, args: &[Word]) -> Option<f64> {
    use Func::*;
    let a = to_float(args[0]);
    let b = args.get(1).map_or(0.0, |&word| to_float(word));
    Some(match func {
        Add => a + b,
        Sub => a - b,
        Mul => a * b,
        Div => a / b,
        Pow => a.powf(b),
        Neg => -a,
        _ => return None,
    })
}

fn derived(text: &str) -> Option<Word> {
    dictionary::intern(text).ok().map(|(word, _)| word)
}

fn bytes(bytes: &[u8]) -> Option<Word> {
    dictionary::intern(bytes).ok().map(|(word, _)| word)
}

/// The text that `spell` appends.
fn spelled(spell: impl FnOnce(&mut String)) -> Option<Word> {
    let mut text = String::new();
    spell(&mut text);
    derived(&text)
}

fn text(func: Func, args: &[Word]) -> Option<Word> {
    match func {
        Func::Cat => {
            let mut whole = String::new();
            for &word in args {
                dictionary::with_text(word, |text| whole.push_str(text))?;
                if whole.len() > MAX_TEXT_BYTES {
                    return None;
                }
            }
            derived(&whole)
        }
        Func::Strlen => dictionary::with_text(args[0], |text| from_number(text.len() as i64)),
        Func::Substr => dictionary::with_text(args[0], |text| {
            let start = usize::try_from(to_number(args[1])).ok()?;
            let length = usize::try_from(to_number(args[2])).ok()?;
            // The part may reach past the end of the text, but not begin there.
            let end = start.checked_add(length)?.min(text.len());
            derived(text.get(start..end)?)
        })?,
        Func::Contains => dictionary::with_text(args[0], |part| {
            dictionary::with_text(args[1], |text| from_bool(text.contains(part)))
        })?,
        _ => dictionary::with_text(args[0], |pattern| {
            dictionary::with_text(args[1], |text| matches(pattern, text))
        })??,
    }
}

thread_local! {
    static PATTERNS: RefCell<HashMap<String, Option<regex::Regex>>> = RefCell::default();
}

fn matches(pattern: &str, text: &str) -> Option<Word> {
    PATTERNS.with_borrow_mut(|patterns| {
        if patterns.len() >= MAX_PATTERNS && !patterns.contains_key(pattern) {
            patterns.clear();
        }
        let compiled = patterns
            .entry(pattern.to_owned())
            .or_insert_with(|| regex::Regex::new(&format!("^(?:{pattern})$")).ok());
        compiled.as_ref().map(|regex| from_bool(regex.is_match(text)))
    })
}

/// The integer that a text says: as in programs, in decimal digits or, behind `0x` or `0b`, those of another base.
fn integer(text: &str) -> Option<i128> {
    let text = text.trim();
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (digits, base) = match unsigned.get(..2) {
        Some("0x") => (unsigned.get(2..)?, 16),
        Some("0b") => (unsigned.get(2..)?, 2),
        _ => (unsigned, 10),
    };
    // What reads the digits takes a sign before them, too.
    digits.starts_with(|first: char| first.is_ascii_alphanumeric()).then_some(())?;
    let value = i128::from(u64::from_str_radix(digits, base).ok()?);
    Some(if text.starts_with('-') { -value } else { value })
}

fn convert(func: Func, over: Type, word: Word) -> Option<Word> {
    match func {
        Func::ToNumber => match over {
            Type::Number | Type::Instant => Some(word),
            Type::Unsigned => Some(from_number(word as i64)),
            Type::Float => {
                truncated(to_float(word), -(2f64.powi(63)), 2f64.powi(63)).map(|f| from_number(f as i64))
            }
            Type::Bool => Some(from_number(word as i64)),
            Type::Uuid | Type::Bytes | Type::Composite(_) => None,
            Type::Symbol => {
                dictionary::with_text(word, |text| integer(text)?.try_into().ok().map(from_number))?
            }
        },
        Func::ToUnsigned => match over {
            Type::Number | Type::Instant => Some(to_number(word) as u64),
            Type::Uuid | Type::Bytes | Type::Composite(_) => None,
            Type::Unsigned | Type::Bool => Some(word),
            Type::Float => truncated(to_float(word), 0.0, 2f64.powi(64)).map(|f| f as u64),
            Type::Symbol => dictionary::with_text(word, |text| integer(text)?.try_into().ok())?,
        },
        Func::ToFloat => match over {
            Type::Number | Type::Instant => Some(from_float(to_number(word) as f64)),
            Type::Uuid | Type::Bytes | Type::Composite(_) => None,
            Type::Unsigned | Type::Bool => Some(from_float(word as f64)),
            Type::Float => Some(word),
            Type::Symbol => dictionary::with_text(word, |text| text.trim().parse().ok().map(from_float))?,
        },
        _ => match over {
            Type::Number => derived(&to_number(word).to_string()),
            Type::Unsigned => derived(&word.to_string()),
            Type::Float => derived(&to_float(word).to_string()),
            Type::Bool => derived(if word == 0 { "false" } else { "true" }),
            Type::Symbol => Some(word),
            Type::Composite(_) => None,
            Type::Instant => spelled(|text| spelling::write_instant(to_number(word), text)),
            Type::Uuid => {
                let bytes = dictionary::with_bytes(word, |bytes| bytes.try_into().ok())??;
                spelled(|text| spelling::write_uuid(bytes, text))
            }
            Type::Bytes => dictionary::with_bytes(word, |bytes| {
                let fits = bytes.len() <= MAX_TEXT_BYTES / 4 * 3;
                fits.then(|| spelled(|text| spelling::write_bytes(bytes, text)))?
            })?,
        },
    }
}

/// `value` cut towards zero, if that lies in `[low, high)`.
fn truncated(value: f64, low: f64, high: f64) -> Option<f64> {
    let whole = value.trunc();
    (whole >= low && whole < high).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(value: i64) -> Word {
        from_number(value)
    }

    fn s(text: &str) -> Word {
        dictionary::announced(text).unwrap()
    }

    #[test]
    fn integers_wrap_and_division_by_zero_fails() {
        let cases = [
            (Func::Add, i64::MAX, 1, Some(i64::MIN)),
            (Func::Div, -7, 2, Some(-3)),
            (Func::Mod, -7, 2, Some(-1)),
            (Func::Div, 1, 0, None),
            (Func::Mod, 1, 0, None),
            (Func::Div, i64::MIN, -1, Some(i64::MIN)),
            (Func::Pow, 3, 4, Some(81)),
            (Func::Pow, 2, -1, None),
            (Func::Bshru, -1, 60, Some(15)),
            (Func::Bshr, -16, 2, Some(-4)),
        ];
        for (func, a, b, expected) in cases {
            assert_eq!(apply(func, Type::Number, &[n(a), n(b)]), expected.map(n), "{func:?} {a} {b}");
        }
    }

    #[test]
    fn instants_lie_no_further_apart_than_a_number_says() {
        assert_eq!(apply(Func::InstantDiff, Type::Instant, &[n(7), n(-5)]), Some(n(12)));
        // A plan that takes a record for another one can have such.
        assert_eq!(apply(Func::InstantDiff, Type::Instant, &[n(i64::MAX), n(-5)]), None);
        assert_eq!(apply(Func::InstantSub, Type::Instant, &[n(7), n(i64::MIN)]), None);
    }

    #[test]
    fn texts_say_integers_in_three_bases() {
        let cases = [
            (" -12 ", Some(-12)),
            ("+7", Some(7)),
            ("0x2A", Some(42)),
            ("-0xbeef", Some(-0xbeef)),
            ("0b101", Some(5)),
            ("-0x8000000000000000", Some(i64::MIN)),
            ("0x8000000000000000", None),
            ("0x", None),
            ("0x-1", None),
            ("0b2", None),
            ("--1", None),
            ("12x", None),
            ("", None),
            ("é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(apply(Func::ToNumber, Type::Symbol, &[s(text)]), expected.map(n), "{text}");
        }
        assert_eq!(apply(Func::ToUnsigned, Type::Symbol, &[s("0xffffffffffffffff")]), Some(u64::MAX));
        assert_eq!(apply(Func::ToUnsigned, Type::Symbol, &[s("-1")]), None);
    }

    #[test]
    fn texts_are_joined_cut_and_matched() {
        assert_eq!(apply(Func::Cat, Type::Symbol, &[s("ab"), s("cd"), s("ef")]), Some(s("abcdef")));
        assert_eq!(apply(Func::Substr, Type::Symbol, &[s("flight"), n(2), n(3)]), Some(s("igh")));
        assert_eq!(apply(Func::Substr, Type::Symbol, &[s("flight"), n(4), n(30)]), Some(s("ht")));
        assert_eq!(apply(Func::Substr, Type::Symbol, &[s("flight"), n(-1), n(3)]), None);
        assert_eq!(apply(Func::Match, Type::Symbol, &[s("a.*c"), s("abbc")]), Some(1));
        assert_eq!(apply(Func::Match, Type::Symbol, &[s("a.*c"), s("abbcd")]), Some(0));
        assert_eq!(apply(Func::Match, Type::Symbol, &[s("("), s("x")]), None);
        assert_eq!(apply(Func::Lt, Type::Symbol, &[s("a long symbol, one"), s("b")]), Some(1));
        let texts = [s("b"), s("a long symbol, two"), s("a long symbol, one"), s("é")];
        assert_eq!(apply(Func::Min, Type::Symbol, &texts), Some(texts[2]));
        assert_eq!(apply(Func::Max, Type::Symbol, &texts), Some(texts[3]));
    }

    #[test]
    fn conversions_fail_where_there_is_no_value() {
        assert_eq!(apply(Func::ToNumber, Type::Symbol, &[s("x12")]), None);
        assert_eq!(apply(Func::ToNumber, Type::Symbol, &[s("-12")]), Some(n(-12)));
        assert_eq!(apply(Func::ToNumber, Type::Float, &[from_float(f64::NAN)]), None);
        assert_eq!(apply(Func::ToNumber, Type::Float, &[from_float(-2.9)]), Some(n(-2)));
        assert_eq!(apply(Func::ToUnsigned, Type::Float, &[from_float(-1.0)]), None);
    }
}
