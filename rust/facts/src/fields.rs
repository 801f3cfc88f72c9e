//! Where the fields of a row are: a line that is cut at each delimiter, or what RFC 4180 has.

use memchr::memmem::Finder;

use super::{Field, Form, Found};

/// Most signs of a quoted field.
const LONGEST_FIELD: usize = 131_072;

/// What stands in a record for other reasons than the values in it.
const SIGNS_OF_RECORDS: [char; 9] = [',', '[', ']', '(', ')', '$', ' ', '"', '\\'];

/// Finds the fields of one row after the other, and has those of the last.
#[derive(Debug)]
pub(super) struct Fields {
    delimiter: String,
    finder: Finder<'static>,
    quoted: bool,
    /// Which fields are records, which may have the delimiter in them.
    defined: Vec<bool>,
    found: Vec<Field>,
    /// They are in `content`, as some were in quotes; else where they stand in the text.
    apart: bool,
    content: String,
}

impl Fields {
    pub(super) fn new(form: &Form, defined: Vec<bool>) -> Self {
        let mut fields = Fields {
            finder: Finder::new(form.delimiter.as_bytes()).into_owned(),
            delimiter: form.delimiter.clone(),
            quoted: form.quoted,
            defined: Vec::new(),
            found: Vec::new(),
            apart: false,
            content: String::new(),
        };
        fields.set_defined(defined);
        fields
    }

    /// Says which fields are records.
    pub(super) fn set_defined(&mut self, defined: Vec<bool>) {
        // What can't stand in a record separates fields wherever it is.
        let matters = !self.quoted && self.delimiter.contains(SIGNS_OF_RECORDS) && defined.contains(&true);
        self.defined = if matters { defined } else { Vec::new() };
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// A field of the row that was found in this text.
    #[inline]
    pub(super) fn get<'t>(&'t self, text: &'t str, index: usize) -> &'t str {
        let source = if self.apart { &self.content } else { text };
        self.found.get(index).and_then(|field| source.get(field.clone())).unwrap_or_default()
    }

    /// All of them.
    pub(super) fn all<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        (0..self.len()).map(move |index| self.get(text, index))
    }

    /// Finds the row that begins at `from`; none if its end isn't there, unless the text is `whole`.
    ///
    /// # Errors
    ///
    /// What is wrong with the quotes.
    pub(super) fn find(&mut self, text: &str, from: usize, whole: bool) -> Result<Option<Found>, String> {
        self.found.clear();
        self.apart = false;
        if from == text.len() {
            return Ok(None);
        }
        let rest = &text.as_bytes()[from..];
        let length = memchr::memchr(b'\n', rest).or(whole.then_some(rest.len()));
        // Only \n ends a line without quotes: a lone \r may be part of a symbol.
        if let Some(length) = length {
            let line = rest[..length].strip_suffix(b"\r").unwrap_or(&rest[..length]);
            if !self.quoted || (line.len() <= LONGEST_FIELD && memchr::memchr2(b'"', b'\r', line).is_none()) {
                let until = from + line.len();
                self.cut(&text[..until], from);
                let end = text.len().min(from + length + 1);
                return Ok(Some(Found { end, lines: 1, blank: until == from }));
            }
        }
        if self.quoted { self.find_quoted(text, from, whole) } else { Ok(None) }
    }

    /// Cuts the line that begins at `start` at its delimiters.
    #[inline]
    fn cut(&mut self, line: &str, mut start: usize) {
        loop {
            let mut inside = start;
            if self.defined.get(self.found.len()) == Some(&true) {
                inside = self.end_of_record(line, start);
            }
            let rest = &line.as_bytes()[inside..];
            let at = match *self.delimiter.as_bytes() {
                [] => None,
                [delimiter] => memchr::memchr(delimiter, rest),
                _ => self.finder.find(rest),
            };
            let Some(at) = at else { break };
            self.found.push(start..inside + at);
            start = inside + at + self.delimiter.len();
        }
        self.found.push(start..line.len());
    }

    /// Where a record is over that begins at `start`: where the delimiter follows what closes it.
    fn end_of_record(&self, line: &str, start: usize) -> usize {
        let (mut at, mut depth, mut before) = (start, 0_i64, '\0');
        while let Some(sign) = line[at..].chars().next() {
            if depth <= 0 && line[at..].starts_with(&self.delimiter) {
                return at;
            }
            // Elsewhere a quote is a sign like others.
            let quoted =
                if sign == '"' && matches!(before, '[' | '(' | ',') { quoted(&line[at..]) } else { None };
            at += quoted.unwrap_or(sign.len_utf8());
            depth += i64::from(matches!(sign, '[' | '(')) - i64::from(matches!(sign, ']' | ')'));
            // Some signs that separate are no white space to Unicode, but to whoever defines these files.
            if !sign.is_whitespace() && !matches!(sign, '\u{1c}'..='\u{1f}') {
                before = sign;
            }
        }
        line.len()
    }

    /// A row that has quotes in it, or what ends lines in other ways.
    fn find_quoted(&mut self, text: &str, from: usize, whole: bool) -> Result<Option<Found>, String> {
        self.apart = true;
        self.content.clear();
        let delimiter = self.delimiter.chars().next().unwrap_or(',');
        let mut signs = text[from..].char_indices().peekable();
        let mut state = State::Begin;
        let (mut lines, mut start, mut length) = (0, 0, 0);
        while let Some((_, sign)) = signs.next() {
            match (sign, signs.peek()) {
                ('\n', _) => lines += 1,
                ('\r', None) if !whole => return Ok(None),
                // Of two signs that end a line the second one counts.
                ('\r', Some((_, '\n'))) => {}
                ('\r', _) => lines += 1,
                _ => {}
            }
            match (state, sign) {
                (State::Quoted, '"') => state = State::Quote,
                (State::Quoted, _) | (State::Quote, '"') => {
                    self.content.push(sign);
                    length += 1;
                    state = State::Quoted;
                }
                (_, '\r' | '\n') => {
                    if sign == '\r' && signs.next_if(|&(_, next)| next == '\n').is_some() {
                        lines += 1;
                    }
                    let blank = state == State::Begin && self.found.is_empty();
                    self.found.push(start..self.content.len());
                    let end = signs.peek().map_or(text.len(), |&(next, _)| from + next);
                    return Ok(Some(Found { end, lines, blank }));
                }
                (State::Begin, '"') => state = State::Quoted,
                (_, sign) if sign == delimiter => {
                    self.found.push(start..self.content.len());
                    (state, start, length) = (State::Begin, self.content.len(), 0);
                }
                (State::Quote, _) => return Err(format!("'{delimiter}' expected after '\"'")),
                (State::Begin | State::Plain, _) => {
                    self.content.push(sign);
                    length += 1;
                    state = State::Plain;
                }
            }
            if length > LONGEST_FIELD {
                return Err(format!("field larger than field limit ({LONGEST_FIELD})"));
            }
        }
        if !whole {
            return Ok(None);
        }
        if state == State::Quoted {
            return Err("unexpected end of data".to_owned());
        }
        self.found.push(start..self.content.len());
        Ok(Some(Found { end: text.len(), lines: lines + 1, blank: false }))
    }
}

/// How far a row with quotes has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A field begins.
    Begin,
    /// Within a field without quotes.
    Plain,
    /// Within quotes.
    Quoted,
    /// Behind a quote within quotes, which closes them unless another one follows.
    Quote,
}

/// How long the text in quotes is that this begins with; none if they aren't closed.
fn quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, sign) in text.char_indices().skip(1) {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}
