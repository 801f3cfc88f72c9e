//! Records as RFC 4180 has them, from pieces of a file that end anywhere.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use memchr::memchr_iter;

use super::cell::from_text;
use super::{BadRow, NoSchemas, OnBad, Parsed, Target};
use crate::encoding::Encoding;
use crate::request::Context;
use crate::rows::RowBuf;

/// How a file is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Separates fields.
    pub delimiter: u8,
    /// Where each column of the relation stands in a record, and how many fields that has; else the columns
    /// themselves in their order.
    pub order: Option<(Vec<usize>, usize)>,
    /// The unquoted field that stands for no value, and what is put in its place, by column; where nothing is, the row
    /// is bad.
    pub null: Option<(String, Vec<Option<String>>)>,
}

/// Goes through records, the fields of one at a time.
struct Records<'b> {
    bytes: &'b [u8],
    last: bool,
    reader: Reader,
    at: usize,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

/// A record: where it begins, and the ends of its fields in `Records::fields`.
struct Record {
    start: usize,
    width: usize,
}

impl<'b> Records<'b> {
    fn new(bytes: &'b [u8], delimiter: u8, last: bool) -> Self {
        let reader = ReaderBuilder::new().delimiter(delimiter).build();
        Records { bytes, last, reader, at: 0, fields: vec![0; 1 << 10], ends: vec![0; 1 << 5] }
    }

    /// The next record that is complete.
    fn next(&mut self) -> Option<Record> {
        // Ends of lines before a record belong to none; the reader would pass over them, but not count.
        while self.bytes.get(self.at).is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
            self.at += 1;
        }
        let start = self.at;
        let (mut written, mut width) = (0, 0);
        loop {
            let rest = &self.bytes[self.at..];
            if rest.is_empty() && !self.last {
                return None;
            }
            let (result, read, bytes, ends) =
                self.reader.read_record(rest, &mut self.fields[written..], &mut self.ends[width..]);
            self.at += read;
            written += bytes;
            width += ends;
            match result {
                ReadRecordResult::Record => return Some(Record { start, width }),
                ReadRecordResult::End => return None,
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.fields.resize(2 * self.fields.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
            }
        }
    }

    fn field(&self, index: usize) -> Option<&str> {
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        std::str::from_utf8(self.fields.get(start..*self.ends.get(index)?)?).ok()
    }
}

/// The first record, its fields, and how much it takes; none if it isn't complete. For a file's first line.
pub fn first(bytes: &[u8], delimiter: u8, last: bool) -> Option<(Vec<String>, usize)> {
    let mut records = Records::new(bytes, delimiter, last);
    let record = records.next()?;
    let fields = (0..record.width).map(|index| records.field(index).unwrap_or("\u{fffd}").to_owned());
    Some((fields.collect(), records.at))
}

/// Reads all records that are complete; with `last` nothing follows, and the end completes a record as well.
pub fn parse(bytes: &[u8], target: &Target, format: &Format, on_bad: OnBad, last: bool) -> Parsed {
    let mut parsed = Parsed { rows: RowBuf::new(target.columns.len()), ..Parsed::default() };
    let mut context = Context::new(Encoding::Json, &NoSchemas);
    let mut records = Records::new(bytes, format.delimiter, last);
    while let Some(record) = records.next() {
        parsed.lines += memchr_iter(b'\n', &bytes[parsed.consumed..record.start]).count() as u64;
        parsed.consumed = record.start;
        if let Err((column, message)) = row(&records, &record, target, format, &mut context, &mut parsed.rows)
        {
            parsed.bad(BadRow { line: parsed.lines, column, message });
            // What was pushed of the row.
            parsed.rows.end_row();
            if on_bad == OnBad::Stop {
                break;
            }
        }
        parsed.lines += memchr_iter(b'\n', &bytes[record.start..records.at]).count() as u64;
        parsed.consumed = records.at;
    }
    parsed.contents = context.contents;
    parsed
}

/// Adds a record's row, or says what is wrong, in which column.
#[inline]
fn row(
    records: &Records<'_>,
    record: &Record,
    target: &Target,
    format: &Format,
    context: &mut Context<'_>,
    rows: &mut RowBuf,
) -> Result<(), (Option<String>, String)> {
    let wanted = format.order.as_ref().map_or(target.columns.len(), |(_, width)| *width);
    if record.width != wanted {
        return Err((None, format!("{}, expected {wanted}", count(record.width))));
    }
    for (index, column) in target.columns.iter().enumerate() {
        let place = format.order.as_ref().map_or(index, |(order, _)| order[index]);
        let blame = |message| (Some(column.name.clone()), message);
        let mut text = records.field(place).ok_or_else(|| blame("not UTF-8".to_owned()))?;
        if let Some((_, instead)) = format.null.as_ref().filter(|(null, _)| *null == text) {
            let instead = instead.get(index).and_then(Option::as_deref);
            let missing = || blame("null, and nothing is given to stand for it".to_owned());
            text = instead.ok_or_else(missing)?;
        }
        rows.push_word(from_text(column.ty, text, context).map_err(blame)?);
    }
    rows.end_row();
    Ok(())
}

fn count(fields: usize) -> String {
    if fields == 1 { "1 field".to_owned() } else { format!("{fields} fields") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::with_text;
    use crate::ids::RelationId;
    use crate::plan::InputMode;
    use crate::value::{Column, Type, from_number, to_number};

    fn target(columns: &[(&str, Type)]) -> Target {
        let column = |&(name, ty): &(&str, Type)| Column::new(name, ty);
        let columns = columns.iter().map(column).collect();
        Target { id: RelationId(1), name: "r".into(), columns, input: InputMode::Set }
    }

    fn pairs() -> Target {
        target(&[("name", Type::Symbol), ("n", Type::Number)])
    }

    fn format() -> Format {
        Format { delimiter: b',', ..Format::default() }
    }

    fn shown(rows: &RowBuf) -> Vec<(String, i64)> {
        rows.iter().map(|row| (with_text(row[0], str::to_owned).unwrap(), to_number(row[1]))).collect()
    }

    const TEXT: &str = "ann,1\r\n\"b, \"\"b\"\"\",2\n\n\"two\nlines\",-3\nünï,4\n";

    fn expected() -> Vec<(String, i64)> {
        [("ann", 1), ("b, \"b\"", 2), ("two\nlines", -3), ("ünï", 4)].map(|(s, n)| (s.to_owned(), n)).to_vec()
    }

    #[test]
    fn records_are_read_wherever_the_file_is_cut() {
        for cut in 0..=TEXT.len() {
            let (mut rest, mut rows, mut lines) = (Vec::new(), Vec::new(), 0);
            for piece in [&TEXT.as_bytes()[..cut], &TEXT.as_bytes()[cut..]] {
                rest.extend_from_slice(piece);
                let parsed = parse(&rest, &pairs(), &format(), OnBad::Stop, false);
                assert_eq!(parsed.bad, [], "cut at {cut}");
                rows.extend(shown(&parsed.rows));
                lines += parsed.lines;
                rest.drain(..parsed.consumed);
            }
            assert_eq!(rows, expected(), "cut at {cut}");
            assert_eq!(lines + memchr_iter(b'\n', &rest).count() as u64, 6, "cut at {cut}");
        }
    }

    #[test]
    fn a_record_without_its_end_waits_unless_nothing_follows() {
        let parsed = parse(b"ann,1\nbob,2", &pairs(), &format(), OnBad::Stop, false);
        assert_eq!((parsed.rows.len(), parsed.consumed), (1, 6));
        let parsed = parse(b"ann,1\nbob,2", &pairs(), &format(), OnBad::Stop, true);
        assert_eq!((parsed.rows.len(), parsed.consumed), (2, 11));
    }

    #[test]
    fn a_bad_row_stops_or_is_skipped_and_says_where() {
        let text = b"ann,1\n\nbob,two\n\"x\ny\",3\ncid\nd\xff,4\neve,5\n";
        let parsed = parse(text, &pairs(), &format(), OnBad::Stop, false);
        assert_eq!((parsed.rows.len(), parsed.consumed, parsed.lines), (1, 7, 2));
        let bad = |line, column: Option<&str>, message: &str| BadRow {
            line,
            column: column.map(str::to_owned),
            message: message.to_owned(),
        };
        let two = bad(2, Some("n"), "\"two\" is not a number (64 bits, signed)");
        assert_eq!(parsed.bad, std::slice::from_ref(&two));
        let parsed = parse(text, &pairs(), &format(), OnBad::Skip, false);
        let others = [bad(5, None, "1 field, expected 2"), bad(6, Some("name"), "not UTF-8")];
        assert_eq!(parsed.bad, [&[two], &others[..]].concat());
        assert_eq!((parsed.rows.len(), parsed.bad_rows, parsed.consumed), (3, 3, text.len()));
        assert_eq!(parsed.rows.row(2)[1], from_number(5));
    }

    #[test]
    fn many_bad_rows_are_counted_and_the_first_are_kept() {
        let parsed = parse(&b"x\n".repeat(1000), &pairs(), &format(), OnBad::Skip, false);
        assert_eq!(
            (parsed.bad_rows, parsed.bad.len(), parsed.bad[15].line),
            (1000, super::super::MAX_BAD, 15)
        );
    }

    #[test]
    fn columns_are_taken_from_where_they_stand() {
        let header = first(b"\xef\xbb\xbfn,other,name\n1,", b',', false);
        assert_eq!(header, Some((vec!["n".into(), "other".into(), "name".into()], 16)));
        assert_eq!(first(b"n,na", b',', false), None);
        let format = Format { order: Some((vec![2, 0], 3)), ..format() };
        let parsed = parse(b"1,?,ann\n", &pairs(), &format, OnBad::Stop, false);
        assert_eq!(shown(&parsed.rows), [("ann".to_owned(), 1)]);
    }

    #[test]
    fn no_value_is_replaced_or_bad() {
        let null = |name: Option<&str>, n: Option<&str>| Format {
            null: Some(("-null-".into(), vec![name.map(str::to_owned), n.map(str::to_owned)])),
            ..format()
        };
        let text = b"-null-,-null-\n";
        let parsed = parse(text, &pairs(), &null(Some("nobody"), Some("-1")), OnBad::Stop, false);
        assert_eq!(shown(&parsed.rows), [("nobody".to_owned(), -1)]);
        let parsed = parse(text, &pairs(), &null(Some("nobody"), None), OnBad::Stop, false);
        assert_eq!(parsed.bad[0].column.as_deref(), Some("n"));
        assert_eq!(parsed.rows.len(), 0);
    }

    #[test]
    fn long_fields_and_many_columns_fit() {
        let wide: Vec<_> = (0..100).map(|_| ("c", Type::Symbol)).collect();
        let line = vec!["long ".repeat(100); 100].join(",") + "\n";
        let parsed = parse(line.repeat(3).as_bytes(), &target(&wide), &format(), OnBad::Stop, false);
        assert_eq!((parsed.rows.len(), parsed.bad), (3, vec![]));
    }
}
