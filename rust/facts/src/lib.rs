//! Rows of text files on their way to a server: from bytes to rows in MessagePack, many at a time. No files.
//!
//! * `fields`: where the fields of a row are.
//! * `cell`: a value as it is usually written, to MessagePack.
//!
//! What isn't written in the usual way, such as a record or a number with a prefix, is left to whoever asks for the rows
//! ([`Odd`]): what a text means is defined there, and here only what is worth being fast. Nothing here can panic on what it
//! is given.

mod cell;
mod fields;
#[cfg(test)]
mod tests;

use std::ops::Range;

use dataflow_protocol::value::Type;
use serde::Deserialize;

/// Makes a value of the column with this index from a text, and appends it in MessagePack; false if it is none.
pub type Odd<'o> = dyn FnMut(usize, &str, &mut Vec<u8>) -> bool + 'o;

/// A column of the relation, as a client is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type's name.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether that is a defined type, whose values may have the delimiter in them.
    #[serde(default, deserialize_with = "is_there")]
    pub types: bool,
}

fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<serde::de::IgnoredAny>::deserialize(deserializer).map(|types| types.is_some())
}

/// How a file is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Stands between fields, if there is one; of `quoted` ones it is one sign.
    pub delimiter: String,
    /// Fields may stand in double quotes, as RFC 4180 has it; else a row is a line, and fields are taken as they are.
    pub quoted: bool,
    /// Whether the first row has the names of the columns, in any order; none compares them to find out.
    pub header: Option<bool>,
    /// How many rows at the beginning say nothing.
    pub skip: usize,
}

/// Some rows of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// An array of rows, in MessagePack.
    pub rows: Vec<u8>,
    /// How many.
    pub count: usize,
}

/// What isn't a row of the relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The line that it begins on, counted from 1.
    pub line: u64,
    /// The column whose value it is, if it is one's.
    pub column: Option<usize>,
    /// The text of that value; otherwise, what is wrong.
    pub what: String,
}

/// The rows of one file, as its bytes come in.
#[derive(Debug)]
pub struct Reader {
    columns: Vec<Column>,
    types: Vec<Option<Type>>,
    form: Form,
    /// What was fed and not yet read is `text[at..]`, and behind it what isn't a whole sign yet.
    text: String,
    at: usize,
    tail: Vec<u8>,
    /// What follows `text` is not UTF-8.
    undecodable: bool,
    /// Nothing was fed yet.
    fresh: bool,
    ended: bool,
    /// Bytes that must be there to make it worth looking for a row again.
    enough: usize,
    /// The line that comes next, counted from 1.
    line: u64,
    /// The first row of all that says something comes next, and may be a header.
    first: bool,
    /// Which field each column is.
    places: Vec<usize>,
    fields: fields::Fields,
    rows: Vec<u8>,
    count: usize,
    misfit: Option<Misfit>,
}

/// An array's marker for 32 bits of length: the length is filled in when it is known.
const ARRAY: [u8; 5] = [0xdd, 0, 0, 0, 0];

impl Reader {
    /// A file of which nothing is there yet.
    pub fn new(columns: Vec<Column>, form: Form) -> Self {
        let types = columns.iter().map(|column| Type::simple(&column.ty)).collect();
        let defined = columns.iter().map(|column| column.types).collect();
        Reader {
            types,
            fields: fields::Fields::new(&form, defined),
            text: String::new(),
            at: 0,
            tail: Vec::new(),
            undecodable: false,
            fresh: true,
            ended: false,
            enough: 0,
            line: 1,
            first: form.header != Some(false),
            places: (0..columns.len()).collect(),
            rows: ARRAY.to_vec(),
            count: 0,
            misfit: None,
            columns,
            form,
        }
    }

    /// Takes the next bytes of the file; with `last` nothing follows.
    pub fn feed(&mut self, bytes: &[u8], last: bool) {
        self.text.drain(..self.at);
        self.at = 0;
        self.ended |= last;
        if self.undecodable {
            return;
        }
        let joined;
        let bytes = if self.tail.is_empty() {
            bytes
        } else {
            joined = [&self.tail[..], bytes].concat();
            &joined
        };
        let (valid, rest) = match std::str::from_utf8(bytes) {
            Ok(all) => (all, &[][..]),
            Err(error) => {
                self.undecodable = error.error_len().is_some() || self.ended;
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                (std::str::from_utf8(valid).unwrap_or_default(), rest)
            }
        };
        // A mark of the order of bytes at the beginning is no part of the text.
        let text = if self.fresh { valid.strip_prefix('\u{feff}').unwrap_or(valid) } else { valid };
        self.fresh &= valid.is_empty();
        self.text.push_str(text);
        self.tail = rest.to_vec();
    }

    /// The next so many rows, or as many as take about so many `bytes`. None wants more to be fed, unless all was, or
    /// something doesn't fit: then [`Reader::misfit`] says what, and the rows before it that weren't handed out never are.
    pub fn batch(&mut self, rows: usize, bytes: usize, odd: &mut Odd<'_>) -> Option<Batch> {
        while self.misfit.is_none() {
            if self.count > 0 && (self.count >= rows || self.rows.len() >= bytes) {
                return self.take();
            }
            match self.next() {
                Ok(Some(line)) => self.misfit = self.row(line, odd).err(),
                Ok(None) if self.ended && self.count > 0 => return self.take(),
                Ok(None) => return None,
                Err(misfit) => self.misfit = Some(misfit),
            }
        }
        None
    }

    /// What isn't a row, if that was come upon; nothing behind it is read.
    pub fn misfit(&self) -> Option<&Misfit> {
        self.misfit.as_ref()
    }

    fn take(&mut self) -> Option<Batch> {
        let count = u32::try_from(self.count).ok()?;
        let mut rows = std::mem::replace(&mut self.rows, ARRAY.to_vec());
        rows[1..ARRAY.len()].copy_from_slice(&count.to_be_bytes());
        self.rows.reserve(rows.len());
        Some(Batch { rows, count: std::mem::take(&mut self.count) })
    }

    /// Looks for the fields of the next row, passing over what is none; the line that it begins on, if there is one.
    fn next(&mut self) -> Result<Option<u64>, Misfit> {
        loop {
            let left = self.text.len() - self.at;
            if !self.ended && !self.undecodable && left < self.enough {
                return Ok(None);
            }
            let whole = self.ended && !self.undecodable;
            let found = self.fields.find(&self.text, self.at, whole).map_err(|what| self.bad(what))?;
            let Some(found) = found else {
                if self.undecodable {
                    let lines = self.text[self.at..].matches('\n').count();
                    return Err(Misfit { line: self.line + lines as u64, ..self.bad("not UTF-8") });
                }
                // A row of many pieces isn't looked at with each of them.
                self.enough = 2 * left;
                return Ok(None);
            };
            self.enough = 0;
            self.at = found.end;
            let line = self.line;
            self.line += found.lines;
            if found.blank && !self.blank_counts() {
                continue;
            }
            if self.form.skip > 0 {
                self.form.skip -= 1;
            } else if !std::mem::take(&mut self.first) || !self.header() {
                return Ok(Some(line));
            }
        }
    }

    /// Whether an empty line is a row.
    fn blank_counts(&self) -> bool {
        matches!(&*self.types, [] | [Some(Type::Symbol | Type::Bytes)])
    }

    /// Whether the fields at hand are no row but names, whose order is followed if they are the columns'.
    fn header(&mut self) -> bool {
        let fields: Vec<&str> = self.fields.all(&self.text).collect();
        let places: Option<Vec<usize>> =
            self.columns.iter().map(|column| fields.iter().position(|field| *field == column.name)).collect();
        match places.filter(|places| places.len() == fields.len() && !fields.is_empty()) {
            Some(places) => {
                let defined = |place| places.iter().position(|&each| each == place);
                let defined =
                    (0..places.len()).map(|place| defined(place).is_some_and(|at| self.columns[at].types));
                self.fields.set_defined(defined.collect());
                self.places = places;
                true
            }
            None => self.form.header == Some(true),
        }
    }

    /// Adds the row of the fields at hand, which begins on this line.
    #[inline]
    fn row(&mut self, line: u64, odd: &mut Odd<'_>) -> Result<(), Misfit> {
        let (found, expected) = (self.fields.len(), self.columns.len());
        let misfit = |column, what: &str| Misfit { line, column, what: what.to_owned() };
        if expected == 0 {
            let text = self.fields.get(&self.text, 0);
            if found != 1 || !matches!(text, "()" | "") {
                return Err(misfit(None, "expected (), the row without columns"));
            }
        } else if found != expected {
            let fields = if found == 1 { "field" } else { "fields" };
            return Err(misfit(None, &format!("{found} {fields}, expected {expected}")));
        }
        let _ = rmp::encode::write_array_len(&mut self.rows, u32::try_from(expected).unwrap_or(u32::MAX));
        for (column, (&place, &ty)) in self.places.iter().zip(&self.types).enumerate() {
            let text = self.fields.get(&self.text, place);
            if !cell::write(ty, text, &mut self.rows) && !odd(column, text, &mut self.rows) {
                return Err(misfit(Some(column), text));
            }
        }
        self.count += 1;
        Ok(())
    }

    fn bad(&self, what: impl Into<String>) -> Misfit {
        Misfit { line: self.line, column: None, what: what.into() }
    }
}

/// Where a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// The end of what belongs to it.
    end: usize,
    /// Lines that it takes.
    lines: u64,
    /// It is an empty line.
    blank: bool,
}

type Field = Range<usize>;
