//! Lines, from keys: the way Soufflé writes them.
//!
//! Floats have up to 17 significant digits, what a Soufflé of 64 bits prints: enough to read the same number back, at
//! the price of `0.10000000000000001`. Within a record, texts stand in quotes where they could be taken for something
//! else.

use std::fmt::Write;
use std::ops::Range;

use super::Form;
use super::key::{self, Reader};
use crate::shape::Shapes;
use crate::spelling;
use crate::value::{self, Column, Type};

/// Significant digits of a float.
const DIGITS: usize = 17;
/// Least exponent that needn't be written.
const LEAST_EXPONENT: i32 = -4;

/// Writes the lines of rows.
pub(super) struct Lines<'t> {
    columns: &'t [Column],
    form: &'t Form,
}

impl<'t> Lines<'t> {
    pub(super) fn new(columns: &'t [Column], form: &'t Form) -> Self {
        Lines { columns, form }
    }

    /// The line of the columns' names.
    pub(super) fn header(&self, out: &mut String) {
        for (index, column) in self.columns.iter().enumerate() {
            self.field(index, false, out, |out| out.push_str(&column.name));
        }
        out.push('\n');
    }

    /// The line of the row whose key comes next.
    #[inline]
    pub(super) fn row(&self, key: &mut Reader<'_>, out: &mut String) {
        if self.columns.is_empty() {
            self.field(0, false, out, |out| out.push_str("()"));
        }
        for (index, column) in self.columns.iter().enumerate() {
            let shapes = column.shapes.as_deref();
            let text = matches!(column.ty, Type::Symbol | Type::Composite(_));
            // A key that ends too soon is one that nobody has written.
            self.field(index, text, out, |out| {
                let _ = self.value(column.ty, shapes, key, false, out);
            });
        }
        out.push('\n');
    }

    /// Writes a field; a `text` always stands in quotes where there are any, as with Soufflé.
    #[inline]
    fn field(&self, index: usize, text: bool, out: &mut String, write: impl FnOnce(&mut String)) {
        if index > 0 {
            out.push_str(&self.form.delimiter);
        }
        let start = out.len();
        write(out);
        if self.form.quoted && (text || self.wants_quotes(&out[start..])) {
            let field = out.split_off(start);
            let _ = write!(out, "\"{}\"", field.replace('"', "\"\""));
        }
    }

    /// Whether a field would be read as something else. A line that is empty would be no row.
    fn wants_quotes(&self, field: &str) -> bool {
        (field.is_empty() && self.columns.len() == 1)
            || field.contains(['"', '\r', '\n'])
            || field.contains(&self.form.delimiter)
    }

    /// Writes the value that comes next, `within` a record or not: there texts stand in quotes where they have to, or
    /// all of them if fields do.
    #[inline]
    fn value(
        &self,
        ty: Type,
        shapes: Option<&Shapes>,
        key: &mut Reader<'_>,
        within: bool,
        out: &mut String,
    ) -> Option<()> {
        match ty {
            Type::Number => out.push_str(itoa::Buffer::new().format(key.number()?)),
            Type::Unsigned => out.push_str(itoa::Buffer::new().format(key.integer()?.1)),
            Type::Bool => out.push_str(if key.integer()?.1 == 0 { "false" } else { "true" }),
            Type::Float => float(value::to_float(key.word()?), out),
            Type::Instant => spelling::write_instant(value::to_number(key.word()?), out),
            Type::Uuid => spelling::write_uuid(key.take()?, out),
            Type::Symbol => {
                let start = out.len();
                key.bytes(|part| out.push_str(&String::from_utf8_lossy(part)))?;
                if within {
                    quote(start, self.form.quoted, out);
                }
            }
            Type::Bytes => {
                let mut bytes = Vec::new();
                key.bytes(|part| bytes.extend_from_slice(part))?;
                spelling::write_bytes(&bytes, out);
            }
            Type::Composite(id) => {
                let shapes = shapes?;
                let composite = shapes.get(id)?;
                let fields = match composite.record() {
                    Some(_) if key.take()? == [key::NIL] => {
                        out.push_str("nil");
                        return Some(());
                    }
                    Some(fields) => fields,
                    None => {
                        let branch = composite.branches.get(usize::from(u16::from_be_bytes(key.take()?)))?;
                        out.push('$');
                        out.push_str(branch.name.as_deref().unwrap_or_default());
                        &branch.fields
                    }
                };
                // A branch that holds nothing has no parentheses either.
                if composite.record().is_none() && fields.is_empty() {
                    return Some(());
                }
                let [open, close] = if composite.record().is_some() { ['[', ']'] } else { ['(', ')'] };
                out.push(open);
                for (index, field) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    self.value(field.ty, Some(shapes), key, true, out)?;
                }
                out.push(close);
            }
        }
        Some(())
    }
}

/// Puts the text that begins at `start` in quotes, at least if in a record it could be taken for something else.
fn quote(start: usize, always: bool, out: &mut String) {
    // Some signs that separate are no white space to Unicode, but to whoever reads these files.
    let blank = |sign: char| sign.is_whitespace() || matches!(sign, '\u{1c}'..='\u{1f}');
    let text = &out[start..];
    let plain = !text.is_empty()
        && !text.starts_with(blank)
        && !text.ends_with(blank)
        && !text.contains([',', '"', '\\', '[', ']', '(', ')']);
    if always || !plain {
        let text = out.split_off(start);
        let _ = write!(out, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
}

/// Writes a float with up to [`DIGITS`] digits.
fn float(float: f64, out: &mut String) {
    if !float.is_finite() {
        let name = if float.is_nan() { "nan" } else { "inf" };
        out.push_str(if float < 0.0 { "-" } else { "" });
        return out.push_str(name);
    }
    // One digit, the point, the others, and the exponent.
    let written = format!("{float:.*e}", DIGITS - 1);
    let Some((digits, exponent)) = written.split_once('e') else { return };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let digits = digits.replace('.', "");
    let digits = digits.trim_end_matches('0');
    out.push_str(sign);
    if (LEAST_EXPONENT..DIGITS as i32).contains(&exponent) {
        plain(digits, exponent, out);
    } else {
        let (first, others) = digits.split_at(1.min(digits.len()));
        let point = if others.is_empty() { "" } else { "." };
        let side = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{first}{point}{others}e{side}{:02}", exponent.abs());
    }
}

/// Writes digits with the point where the exponent has it; a whole number has none.
fn plain(digits: &str, exponent: i32, out: &mut String) {
    let before = usize::try_from(exponent + 1).unwrap_or_default();
    let zeros = |count: usize, out: &mut String| out.extend(std::iter::repeat_n('0', count));
    let part = |range: Range<usize>| digits.get(range.start.min(digits.len())..range.end.min(digits.len()));
    let whole = part(0..before).unwrap_or_default();
    out.push_str(whole);
    zeros(before.max(1) - whole.len(), out);
    let fraction = part(before..digits.len()).unwrap_or_default();
    if !fraction.is_empty() {
        out.push('.');
        zeros(usize::try_from(-exponent - 1).unwrap_or_default(), out);
        out.push_str(fraction);
    }
}
