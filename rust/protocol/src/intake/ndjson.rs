//! A JSON value a line: a row as an array, or an object whose fields are named like the columns.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{BadRow, NoSchemas, OnBad, Parsed, Target};
use crate::encoding::Encoding;
use crate::request::{Cell, Context, Locate, Raw, Step, parse as parse_value};
use crate::rows::RowBuf;
use crate::value::Word;

/// Reads all lines that are complete; with `last` nothing follows, and the end completes a line as well.
///
/// Fields that the relation has no column for are passed over.
pub fn parse(bytes: &[u8], target: &Target, on_bad: OnBad, last: bool) -> Parsed {
    let mut parsed = Parsed { rows: RowBuf::new(target.columns.len()), ..Parsed::default() };
    let mut context = Context::new(Encoding::Json, &NoSchemas);
    while parsed.consumed < bytes.len() {
        let rest = &bytes[parsed.consumed..];
        let (line, ended) = match memchr(b'\n', rest) {
            Some(end) => (&rest[..end], 1),
            None if last => (rest, 0),
            None => break,
        };
        if !line.trim_ascii().is_empty()
            && let Err(bad) = row(line, target, &mut context, &mut parsed.rows)
        {
            parsed.bad(BadRow { line: parsed.lines, ..bad });
            if on_bad == OnBad::Stop {
                break;
            }
        }
        parsed.consumed += line.len() + ended;
        parsed.lines += ended as u64;
    }
    parsed.contents = context.contents;
    parsed
}

fn row(line: &[u8], target: &Target, context: &mut Context<'_>, rows: &mut RowBuf) -> Result<(), BadRow> {
    let mut row =
        Row { target, context, words: vec![None; target.columns.len()], column: None, object: false };
    let failure = parse_value(line, Encoding::Json, &mut row).err();
    let Row { words, column, object, .. } = row;
    let named = column.and_then(|index| target.columns.get(index));
    let bad = |message| BadRow { line: 0, column: named.map(|column| column.name.clone()), message };
    if let Some(failure) = failure {
        let whole = parse_value(line, Encoding::Json, std::marker::PhantomData::<IgnoredAny>);
        if let Err(malformed) = whole {
            // Within its line, that is: which one it is in the file is the caller's to say.
            let place = malformed.place.unwrap_or_default().replace(" at line 1", " at");
            let message = format!("malformed JSON: {}{place}", malformed.what);
            return Err(BadRow { line: 0, column: None, message });
        }
        let Some((index, column)) = column.zip(named) else { return Err(bad(failure.what)) };
        let step = if object { Step::Field(&column.name) } else { Step::Element(index) };
        let value = parse_value(line, Encoding::Json, Locate { path: &[step], encoding: Encoding::Json });
        let value = value.ok().flatten().map_or_else(|| "the value".to_owned(), Raw::render);
        return Err(bad(format!("{value} is not of type {}", column.ty.name())));
    }
    match words.iter().position(Option::is_none) {
        Some(missing) => {
            let column = target.columns.get(missing).map(|column| column.name.clone());
            Err(BadRow { line: 0, column, message: "missing".to_owned() })
        }
        None => {
            words.into_iter().flatten().for_each(|word| rows.push_word(word));
            rows.end_row();
            Ok(())
        }
    }
}

/// Seed of a row of either form.
struct Row<'c, 's> {
    target: &'c Target,
    context: &'c mut Context<'s>,
    words: Vec<Option<Word>>,
    /// The column being read.
    column: Option<usize>,
    object: bool,
}

impl<'de> DeserializeSeed<'de> for &mut Row<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Row<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let wanted = self.target.columns.len();
        for (index, column) in self.target.columns.iter().enumerate() {
            self.column = Some(index);
            let cell = Cell::new(column, self.context, false);
            self.words[index] = seq.next_element_seed(cell)?;
            if self.words[index].is_none() {
                self.column = None;
                return Err(de::Error::custom(format!("{index} values, expected {wanted}")));
            }
        }
        self.column = None;
        let mut more = wanted;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            more += 1;
        }
        if more == wanted {
            Ok(())
        } else {
            Err(de::Error::custom(format!("{more} values, expected {wanted}")))
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.object = true;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match self.target.columns.iter().position(|column| column.name == name) {
                Some(index) => {
                    self.column = Some(index);
                    let cell = Cell::new(&self.target.columns[index], self.context, false);
                    self.words[index] = Some(map.next_value_seed(cell)?);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        self.column = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::{Content, word_of};
    use crate::ids::RelationId;
    use crate::plan::InputMode;
    use crate::value::{Column, Type, from_float, from_number};

    fn target() -> Target {
        let column = |(name, ty): (&str, Type)| Column::new(name, ty);
        let columns = [("name", Type::Symbol), ("n", Type::Number), ("x", Type::Float)].map(column).to_vec();
        Target { id: RelationId(1), name: "r".into(), columns, input: InputMode::Set }
    }

    #[test]
    fn arrays_and_objects_are_rows() {
        let text = "[\"ann\", 1, 2.5]\n\n{\"x\": 3, \"other\": {\"n\": [1]}, \"n\": -2, \"name\": \"ünïcode text\"}\r\n[\"cut\",";
        let parsed = parse(text.as_bytes(), &target(), OnBad::Stop, false);
        assert_eq!(parsed.bad, []);
        let rows: Vec<_> = parsed.rows.iter().collect();
        let word = |text| word_of(text).unwrap();
        assert_eq!(rows[0], [word("ann"), from_number(1), from_float(2.5)]);
        assert_eq!(rows[1], [word("ünïcode text"), from_number(-2), from_float(3.0)]);
        assert_eq!((parsed.consumed, parsed.lines), (text.len() - 7, 3));
        assert_eq!(parsed.contents, [Content::Text("ünïcode text".into())]);
    }

    #[test]
    fn a_bad_line_says_which_column_and_why() {
        for (line, column, message) in [
            ("[\"a\", \"one\", 1]", Some("n"), "\"one\" is not of type number"),
            ("{\"name\": \"a\", \"n\": null, \"x\": 1}", Some("n"), "null is not of type number"),
            ("{\"name\": \"a\", \"x\": 1}", Some("n"), "missing"),
            ("[\"a\", 1]", None, "2 values, expected 3"),
            ("[\"a\", 1, 2, 3, 4]", None, "5 values, expected 3"),
        ] {
            let text = format!("[\"first\", 1, 1]\n{line}\n[\"last\", 1, 1]\n");
            let parsed = parse(text.as_bytes(), &target(), OnBad::Skip, false);
            let bad = BadRow { line: 1, column: column.map(str::to_owned), message: message.to_owned() };
            assert_eq!((parsed.bad, parsed.rows.len()), (vec![bad], 2), "{line}");
            let parsed = parse(text.as_bytes(), &target(), OnBad::Stop, false);
            assert_eq!((parsed.rows.len(), parsed.lines, parsed.consumed), (1, 1, 16), "{line}");
        }
        for line in ["[1, 2", "nonsense", "{\"name\": }"] {
            let parsed = parse(format!("{line}\n").as_bytes(), &target(), OnBad::Skip, false);
            assert!(parsed.bad[0].message.starts_with("malformed JSON: "), "{:?}", parsed.bad);
        }
        let parsed = parse(b"17\n", &target(), OnBad::Skip, false);
        assert!(parsed.bad[0].message.contains("expected an array or an object"), "{:?}", parsed.bad);
    }

    #[test]
    fn a_line_without_its_end_waits_unless_nothing_follows() {
        let text = b"[\"a\", 1, 1]\n[\"b\", 1, 1]";
        assert_eq!(parse(text, &target(), OnBad::Stop, false).rows.len(), 1);
        assert_eq!(parse(text, &target(), OnBad::Stop, true).rows.len(), 2);
    }
}
