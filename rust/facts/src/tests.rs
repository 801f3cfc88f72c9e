//! Rows of small files, wherever they are cut. What a text means is compared with Python's reading of it in
//! `tests/e2e/test_text_files.py`.

use proptest::prelude::*;

use super::*;

fn none(_: usize, _: &str, _: &mut Vec<u8>) -> bool {
    false
}

fn columns(types: &[&str]) -> Vec<Column> {
    let column = |(index, ty): (usize, &&str)| Column {
        name: format!("c{index}"),
        ty: (*ty).to_owned(),
        types: false,
    };
    types.iter().enumerate().map(column).collect()
}

fn form(delimiter: &str, quoted: bool) -> Form {
    Form { delimiter: delimiter.to_owned(), quoted, header: Some(false), skip: 0 }
}

/// All rows as JSON shows them, and what ended them; bytes are fed so many at a time.
fn read(content: &[u8], columns: Vec<Column>, form: Form, piece: usize) -> (Vec<String>, Option<Misfit>) {
    let mut reader = Reader::new(columns, form);
    let mut rows = Vec::new();
    let mut pieces = content.chunks(piece);
    loop {
        while let Some(batch) = reader.batch(3, usize::MAX, &mut none) {
            let decoded: Vec<serde_json::Value> = rmp_serde::from_slice(&batch.rows).unwrap();
            assert_eq!(decoded.len(), batch.count);
            rows.extend(decoded.iter().map(ToString::to_string));
        }
        if reader.misfit().is_some() || reader.ended {
            return (rows, reader.misfit().cloned());
        }
        match pieces.next() {
            Some(bytes) => reader.feed(bytes, false),
            None => reader.feed(b"", true),
        }
    }
}

fn rows(content: &str, types: &[&str], form: Form) -> Vec<String> {
    let (rows, misfit) = read(content.as_bytes(), columns(types), form, usize::MAX);
    assert_eq!(misfit, None);
    rows
}

fn misfit(content: &[u8], types: &[&str], form: Form) -> (u64, Option<usize>, String) {
    let misfit = read(content, columns(types), form, usize::MAX).1.unwrap();
    (misfit.line, misfit.column, misfit.what)
}

#[test]
fn lines_are_cut_at_delimiters() {
    let text = "\u{feff}a\t1\r\n\n\"b\rc\t-2";
    assert_eq!(rows(text, &["symbol", "number"], form("\t", false)), [r#"["a",1]"#, r#"["\"b\rc",-2]"#]);
    let found = rows("a::1\n:::2\n", &["symbol", "symbol"], form("::", false));
    assert_eq!(found, [r#"["a","1"]"#, r#"["",":2"]"#]);
    assert_eq!(rows("a,b\n", &["symbol"], form("", false)), [r#"["a,b"]"#]);
}

#[test]
fn quoted_fields_may_hold_what_separates() {
    let text = "a,1\r\"b, \"\"c\"\"\r\nd\",2\r\n\r\n\"\",3";
    let expected = [r#"["a",1]"#, r#"["b, \"c\"\r\nd",2]"#, r#"["",3]"#];
    assert_eq!(rows(text, &["symbol", "number"], form(",", true)), expected);
}

#[test]
fn lines_are_counted_wherever_rows_begin() {
    let types = ["symbol", "number"];
    assert_eq!(
        misfit(b"a,1\n\n\"b\nc\rd\r\ne\",2\nf\n", &types, form(",", true)),
        (7, None, "1 field, expected 2".into())
    );
    assert_eq!(misfit(b"a,1\nb,x\n", &types, form(",", false)), (2, Some(1), "x".into()));
    assert_eq!(misfit(b"a,1\n\"b,2\n", &types, form(",", true)), (2, None, "unexpected end of data".into()));
    assert_eq!(misfit(b"\"b\"c,2\n", &types, form(",", true)), (1, None, "',' expected after '\"'".into()));
    assert_eq!(misfit(b"a,1\nb\xff,2\n", &types, form(",", false)), (2, None, "not UTF-8".into()));
    assert_eq!(misfit(b"a,1\n\"b\n\xff\",2\n", &types, form(",", true)), (3, None, "not UTF-8".into()));
    assert_eq!(misfit(b"a,1\nb,\xc3", &types, form(",", false)), (2, None, "not UTF-8".into()));
}

#[test]
fn a_field_in_quotes_has_an_end() {
    let field = "x".repeat(131_072);
    let text = format!("\"{field}\",1\n\"{field}x\",2\n");
    let what = "field larger than field limit (131072)".to_owned();
    assert_eq!(misfit(text.as_bytes(), &["symbol", "number"], form(",", true)), (2, None, what));
}

#[test]
fn a_header_gives_the_order() {
    let header =
        |header, content: &str| rows(content, &["symbol", "number"], Form { header, ..form(",", false) });
    assert_eq!(header(None, "c1,c0\n1,a\n"), [r#"["a",1]"#]);
    assert_eq!(header(None, "a,1\n"), [r#"["a",1]"#]);
    assert_eq!(header(Some(true), "x,y\na,1\n"), [r#"["a",1]"#]);
    assert_eq!(
        rows("?\n?\na,1\n", &["symbol", "number"], Form { skip: 2, ..form(",", false) }),
        [r#"["a",1]"#]
    );
}

#[test]
fn records_keep_their_delimiters() {
    let defined = Column { name: "r".into(), ty: "R".into(), types: true };
    let mut reader = Reader::new([vec![defined], columns(&["symbol"])].concat(), form(",", false));
    reader.feed(b"[a, \",]\"],x\nnil,y\n", true);
    let mut odd = |column: usize, text: &str, out: &mut Vec<u8>| {
        assert_eq!(column, 0);
        rmp::encode::write_str(out, text).is_ok()
    };
    let batch = reader.batch(10, usize::MAX, &mut odd).unwrap();
    let found: Vec<(String, String)> = rmp_serde::from_slice(&batch.rows).unwrap();
    assert_eq!(found, [("[a, \",]\"]".into(), "x".into()), ("nil".into(), "y".into())]);
}

#[test]
fn batches_end_with_their_rows_or_bytes() {
    let mut reader = Reader::new(columns(&["symbol"]), form(",", false));
    reader.feed(b"a\nb\nc\nd\ne\n", true);
    let mut sizes = Vec::new();
    for (rows, bytes) in [(2, usize::MAX), (10, 1), (10, usize::MAX), (10, usize::MAX)] {
        sizes.push(reader.batch(rows, bytes, &mut none).map(|batch| batch.count));
    }
    assert_eq!(sizes, [Some(2), Some(1), Some(2), None]);
}

proptest! {
    #[test]
    fn where_a_file_is_cut_makes_no_difference(
        text in "[a1,\"\r\né\u{feff}]{0,40}",
        quoted in any::<bool>(),
        piece in 1_usize..9,
        types in prop::sample::select(vec![vec!["symbol"], vec!["symbol", "symbol"], vec!["number", "symbol"], vec![]]),
    ) {
        let whole = read(text.as_bytes(), columns(&types), form(",", quoted), usize::MAX);
        let cut = read(text.as_bytes(), columns(&types), form(",", quoted), piece);
        prop_assert_eq!(whole, cut);
    }
}
