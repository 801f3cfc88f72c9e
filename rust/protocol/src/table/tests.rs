//! Lines of every type as Python's `csv` and `%.17g` give them; the order of values; bytes that are no changes.

use proptest::prelude::*;

use super::*;
use crate::dictionary;

/// A value as a server sends it.
#[derive(Clone, Debug)]
enum Sent {
    Int(i64),
    Uint(u64),
    Float(f64),
    Bool(bool),
    Text(&'static str),
    Bin(Vec<u8>),
    Seconds(u32),
    Nil,
    List(Vec<Sent>),
    Branch(&'static str, Vec<Sent>),
}
use Sent::{Bin, Bool, Branch, Float, Int, List, Nil, Seconds, Text, Uint};

fn encode(value: &Sent, out: &mut Vec<u8>) {
    let list = |values: &[Sent], out: &mut Vec<u8>| {
        rmp::encode::write_array_len(out, values.len() as u32).unwrap();
        values.iter().for_each(|value| encode(value, out));
    };
    match value {
        Int(number) => drop(rmp::encode::write_sint(out, *number).unwrap()),
        Uint(number) => drop(rmp::encode::write_uint(out, *number).unwrap()),
        Float(float) => rmp::encode::write_f64(out, *float).unwrap(),
        Bool(truth) => rmp::encode::write_bool(out, *truth).unwrap(),
        Text(text) => rmp::encode::write_str(out, text).unwrap(),
        Bin(bytes) => rmp::encode::write_bin(out, bytes).unwrap(),
        Seconds(seconds) => {
            out.extend([0xd6, 0xff]);
            out.extend(seconds.to_be_bytes());
        }
        Nil => out.push(0xc0),
        List(values) => list(values, out),
        Branch(name, values) => {
            out.push(0x81);
            rmp::encode::write_str(out, name).unwrap();
            list(values, out);
        }
    }
}

fn changes(rows: &[(Vec<Sent>, i64)]) -> Vec<u8> {
    let change = |(row, copies): &(Vec<Sent>, i64)| List(vec![List(row.clone()), Int(*copies)]);
    let mut out = Vec::new();
    encode(&List(rows.iter().map(change).collect()), &mut out);
    out
}

const TYPES: &str = r#"{
    "Pair": {"record": [{"name": "a", "type": "float"}, {"name": "b", "type": "symbol"}]},
    "List": {"record": [{"name": "head", "type": "number"}, {"name": "tail", "type": "List"}]},
    "Tree": {"branches": {"Node": [{"name": "l", "type": "Tree"}, {"name": "r", "type": "Tree"}],
                          "Leaf": [{"name": "x", "type": "unsigned"}], "None": []}}
}"#;

/// A table of columns `c0`, `c1`, … of these types.
fn table(types: &[&str]) -> Table {
    let column = |(index, ty): (usize, &&str)| {
        let types = if TYPES.contains(&format!("\"{ty}\": {{")) { TYPES } else { "null" };
        format!(r#"{{"name": "c{index}", "type": "{ty}", "types": {types}}}"#)
    };
    let columns: Vec<_> = types.iter().enumerate().map(column).collect();
    Table::new(&format!("[{}]", columns.join(","))).unwrap()
}

fn form(delimiter: &str, quoted: bool) -> Form {
    Form { delimiter: delimiter.into(), quoted }
}

fn written(table: &mut Table, form: &Form) -> String {
    let mut text = String::new();
    loop {
        let piece = table.lines(form);
        if piece.is_empty() {
            return text;
        }
        text += &piece;
    }
}

fn lines_in(form: &Form, types: &[&str], rows: &[Vec<Sent>]) -> String {
    let mut table = table(types);
    for row in rows {
        table.add(&changes(&[(row.clone(), 1)])).unwrap();
    }
    written(&mut table, form)
}

fn lines(types: &[&str], rows: &[Vec<Sent>]) -> String {
    lines_in(&form("\t", false), types, rows)
}

#[test]
fn values_are_written_as_souffle_writes_them() {
    let types = ["symbol", "number", "unsigned", "float", "bool", "instant", "uuid", "bytes"];
    let row = |text, number, unsigned, float, truth, seconds, id: u8, bytes: &[u8]| {
        let mut uuid = vec![0; 16];
        uuid[15] = id;
        vec![
            Text(text),
            Int(number),
            Uint(unsigned),
            Float(float),
            Bool(truth),
            Seconds(seconds),
            Bin(uuid),
            Bin(bytes.into()),
        ]
    };
    let rows = [
        row("a \"b\"\0", -1, u64::MAX, 0.1, true, 0, 10, b"\xff\0"),
        row("", i64::MIN, 0, 1.0, false, u32::MAX, 255, b""),
        row("ü\t", i64::MAX, 7, -2.5, false, 86_399, 0, b"\0\0\xff"),
    ];
    assert_eq!(
        lines(&types, &rows),
        "\t-9223372036854775808\t0\t1\tfalse\t2106-02-07T06:28:15.000000Z\t00000000-0000-0000-0000-0000000000ff\t\n\
         a \"b\"\0\t-1\t18446744073709551615\t0.10000000000000001\ttrue\t1970-01-01T00:00:00.000000Z\t\
         00000000-0000-0000-0000-00000000000a\t/wA=\n\
         ü\t\t9223372036854775807\t7\t-2.5\tfalse\t1970-01-01T23:59:59.000000Z\t00000000-0000-0000-0000-000000000000\tAAD/\n"
    );
}

#[test]
fn floats_are_written_as_python_writes_them() {
    // Each as `f"{x:.17g}"`.
    let cases = [
        (0.0, "0"),
        (-0.0, "0"),
        (0.1, "0.10000000000000001"),
        (1.0, "1"),
        (-2.5, "-2.5"),
        (100.0, "100"),
        (123_456.789, "123456.789"),
        (0.0001, "0.0001"),
        (0.00001, "1.0000000000000001e-05"),
        (1e15, "1000000000000000"),
        (1e16, "10000000000000000"),
        (1.5e16, "15000000000000000"),
        (1e17, "1e+17"),
        (1.25e300, "1.2500000000000001e+300"),
        (5e-324, "4.9406564584124654e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        // Halfway between two of 17 digits: to the even one.
        (2f64.powi(-25), "2.9802322387695312e-08"),
        (2f64.powi(-44), "5.6843418860808015e-14"),
        (3.0 * 2f64.powi(-25), "8.9406967163085938e-08"),
        (1.0 / 3.0, "0.33333333333333331"),
        (f64::INFINITY, "inf"),
        (f64::NEG_INFINITY, "-inf"),
        (f64::NAN, "nan"),
        (-f64::NAN, "nan"),
    ];
    for (float, written) in cases {
        assert_eq!(lines(&["float"], &[vec![Float(float)]]), format!("{written}\n"));
        let record = vec![List(vec![Float(float), Text("x")])];
        assert_eq!(lines(&["Pair"], &[record]), format!("[{written}, x]\n"));
    }
}

#[test]
fn records_are_written_as_in_programs_and_their_texts_in_quotes_where_they_have_to() {
    let pair = |text| vec![List(vec![Float(1.0), Text(text)])];
    let texts = ["plain text", "a,b", "a\"\\", "[", "(", " a", "a\u{1f}", "", "a\u{a0}", "a\tb", "$A"];
    let shown: Vec<_> = texts.iter().map(|text| lines(&["Pair"], &[pair(text)])).collect();
    let expected = [
        "plain text",
        "\"a,b\"",
        "\"a\\\"\\\\\"",
        "\"[\"",
        "\"(\"",
        "\" a\"",
        "\"a\u{1f}\"",
        "\"\"",
        "\"a\u{a0}\"",
        "a\tb",
        "$A",
    ];
    assert_eq!(shown, expected.map(|text| format!("[1, {text}]\n")));
    let list = List(vec![Int(1), List(vec![Int(-2), Nil])]);
    assert_eq!(lines(&["List", "List"], &[vec![list, Nil]]), "[1, [-2, nil]]\tnil\n");
    let leaf = |x| Branch("$Leaf", vec![Uint(x)]);
    let tree = Branch("$Node", vec![leaf(1), Branch("$None", vec![])]);
    assert_eq!(lines(&["Tree"], &[vec![tree]]), "$Node($Leaf(1), $None)\n");
}

#[test]
fn quotes_and_headers_stand_where_they_are_wanted() {
    let rows = [vec![Text("a,b"), Text("c")], vec![Text("\""), Text("\n")], vec![Text("\r"), Text("")]];
    let types = ["symbol", "symbol"];
    assert_eq!(lines_in(&form(",", true), &types, &rows), "\"\r\",\"\"\n\"\"\"\",\"\n\"\n\"a,b\",\"c\"\n");
    let pairs = ["a", "\""].map(|text| vec![List(vec![Float(1.0), Text(text)]), Float(0.5)]);
    assert_eq!(
        lines_in(&form(",", true), &["Pair", "float"], &pairs),
        "\"[1, \"\"\\\"\"\"\"]\",0.5\n\"[1, \"\"a\"\"]\",0.5\n"
    );
    assert_eq!(lines_in(&form("::", false), &types, &rows[..1]), "a,b::c\n");
    // Whatever has the delimiter in it; and a line that is empty would be none.
    assert_eq!(
        lines_in(&form("1", true), &["number", "bool"], &[vec![Int(21), Bool(true)]]),
        "\"21\"1true\n"
    );
    assert_eq!(lines_in(&form(",", true), &["symbol"], &[vec![Text("")]]), "\"\"\n");
    assert_eq!(lines_in(&form(",", false), &["symbol"], &[vec![Text("")]]), "\n");
    let table = table(&["number", "symbol"]);
    assert_eq!(table.header(&form("c", true)), "\"c0\"c\"c1\"\n");
    assert_eq!(table.header(&form("::", false)), "c0::c1\n");
}

#[test]
fn the_row_without_columns_is_written_as_such() {
    assert_eq!(lines(&[], &[vec![]]), "()\n");
    assert_eq!(lines(&[], &[]), "");
}

#[test]
fn rows_come_in_the_order_of_their_values() {
    let ordered: [(&str, Vec<Sent>); 7] = [
        ("number", [i64::MIN, -65_536, -257, -256, -255, -1, 0, 1, 255, 256, i64::MAX].map(Int).into()),
        ("unsigned", [0, 1, 255, 256, 1 << 63, u64::MAX].map(Uint).into()),
        ("float", [f64::NEG_INFINITY, -1.0, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN].map(Float).into()),
        ("symbol", ["", "\0", "\0\0", "\0a", "a", "a\0", "a\0\0", "a\u{1}", "ab", "é"].map(Text).into()),
        ("bytes", [&b""[..], b"\0", b"\0\xff", b"\x01", b"a", b"\xff"].map(|bytes| Bin(bytes.into())).into()),
        (
            "List",
            vec![
                Nil,
                List(vec![Int(-1), Nil]),
                List(vec![Int(-1), List(vec![Int(0), Nil])]),
                List(vec![Int(0), Nil]),
            ],
        ),
        (
            "Tree",
            vec![
                Branch("$Leaf", vec![Uint(9)]),
                Branch("$Leaf", vec![Uint(300)]),
                Branch("$Node", vec![Branch("$None", vec![]), Branch("$Leaf", vec![Uint(1)])]),
                Branch("$None", vec![]),
            ],
        ),
    ];
    for (ty, values) in ordered {
        // A column behind it must not matter, whatever it is.
        let row = |value: &Sent| vec![value.clone(), Float(f64::NAN)];
        let expected: String = values.iter().map(|value| lines(&[ty, "float"], &[row(value)])).collect();
        let reversed: Vec<_> = values.iter().rev().map(row).collect();
        assert_eq!(lines(&[ty, "float"], &reversed), expected, "{ty}");
    }
}

#[test]
fn copies_are_lines_and_what_is_not_there_is_none() {
    let mut table = table(&["number"]);
    let rows = [(vec![Int(2)], 3), (vec![Int(1)], 1), (vec![Int(3)], 0), (vec![Int(4)], -2)];
    table.add(&changes(&rows)).unwrap();
    assert_eq!(table.rows(), 4);
    assert_eq!(written(&mut table, &form("\t", false)), "1\n2\n2\n2\n");
}

#[test]
fn rows_that_come_in_a_few_orders_need_no_places_and_others_get_them() {
    let row = |number: i64, copies: i64| (vec![Int(number)], copies);
    let mut table = table(&["number"]);
    // What a worker gives goes on behind what it gave before, whatever others gave between.
    table.add(&changes(&[row(1, 1), row(4, 2), row(2, 1), row(3, 1)])).unwrap();
    table.add(&changes(&[row(5, 1), row(9, 1), row(4, 0), row(6, 1), row(7, 1)])).unwrap();
    let form = form("\t", false);
    let Order::Came(runs) = &table.order else { panic!("they came in order") };
    assert_eq!((runs.len(), table.places.len()), (2, 0));
    assert_eq!(written(&mut table, &form), "1\n2\n3\n4\n4\n5\n6\n7\n9\n");
    // What is refused leaves the rows as they are, in whatever order.
    assert!(table.add(&changes(&[row(0, 1), (vec![], 1)])).is_err());
    table.next = (0, 0);
    assert_eq!(written(&mut table, &form), "1\n2\n3\n4\n4\n5\n6\n7\n9\n");
    table.add(&changes(&[row(0, 1)])).unwrap();
    assert_eq!(written(&mut table, &form), "0\n1\n2\n3\n4\n4\n5\n6\n7\n9\n");
    assert_eq!(table.places.len(), 9);
}

#[test]
fn lines_come_in_pieces_of_a_bounded_size() {
    let mut table = table(&["number"]);
    let copies = PIECE_BYTES as i64;
    table.add(&changes(&[(vec![Int(7)], copies), (vec![Int(8)], 1)])).unwrap();
    let form = form("\t", false);
    let pieces: Vec<_> =
        std::iter::repeat_with(|| table.lines(&form)).take_while(|piece| !piece.is_empty()).collect();
    assert_eq!(pieces.len(), 3);
    assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES));
    assert_eq!(pieces.concat(), "7\n".repeat(copies as usize) + "8\n");
}

#[test]
fn what_is_no_change_of_these_columns_is_refused_and_adds_nothing() {
    let cases: [(&str, Sent, &str); 8] = [
        ("number", Text("7"), "invalid type: string \"7\", expected an integer of 64 bits"),
        ("symbol", Int(7), "invalid type: integer `7`, expected a text"),
        ("uuid", Bin(vec![1]), "a uuid has 16 bytes"),
        ("Tree", Nil, "invalid type: unit value, expected Tree"),
        ("Tree", Branch("Leaf", vec![Uint(1)]), "no such branch"),
        ("Tree", Branch("$Leaf", vec![]), "invalid length 0, expected an array of 1 values"),
        ("List", List(vec![Int(1)]), "invalid length 1, expected an array of 2 values"),
        ("List", List(vec![Int(1), Nil, Nil]), "invalid length 3, expected an array of 2 values"),
    ];
    for (ty, value, message) in cases {
        let mut table = table(&[ty, "bool"]);
        let good = match ty {
            "number" => Int(1),
            "symbol" => Text("fine"),
            "uuid" => Bin(vec![0; 16]),
            "Tree" => Branch("$None", vec![]),
            _ => Nil,
        };
        let bad = changes(&[(vec![good.clone(), Bool(true)], 1), (vec![value, Bool(true)], 1)]);
        let error = table.add(&bad).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read the changes of a relation: {message}"));
        assert_eq!(table.rows(), 0);
        table.add(&changes(&[(vec![good, Bool(true)], 1)])).unwrap();
        assert_eq!(written(&mut table, &form(",", false)).lines().count(), 1);
    }
    let deep = (0..200).fold(Nil, |list, _| List(vec![Int(1), list]));
    let error = table(&["List"]).add(&changes(&[(vec![deep], 1)])).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the changes of a relation: records too deep in one another");
}

#[test]
fn columns_that_nobody_has_defined_are_refused() {
    for (columns, message) in [
        ("[", "cannot read the columns of a table"),
        (r#"[{"name": "x", "type": "Tree"}]"#, "cannot read the columns of a table: unknown type \"Tree\""),
    ] {
        assert_eq!(Table::new(columns).unwrap_err().to_string(), message);
    }
}

#[test]
fn nothing_is_left_in_the_dictionary() {
    const LONG: &str = "a text that nobody else has in this test";
    lines(&["symbol", "Pair"], &[vec![Text(LONG), List(vec![Float(1.0), Text(LONG)])]]);
    let word = dictionary::word_of(dictionary::Entry::Text(LONG)).unwrap();
    assert!(dictionary::with_text(word, str::len).is_none());
}

proptest! {
    #[test]
    fn integers_come_back_and_keep_their_order(numbers in prop::collection::vec(any::<i64>(), 1..20), shift in 0u32..64) {
        let mut expected: Vec<i64> = numbers.iter().map(|number| number >> shift).collect();
        let rows: Vec<_> = expected.iter().map(|&number| vec![Int(number)]).collect();
        expected.sort_unstable();
        let lines = lines(&["number"], &rows);
        let read: Vec<i64> = lines.lines().map(|line| line.parse().unwrap()).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn rows_are_sorted_however_they_come(
        messages in prop::collection::vec(prop::collection::vec((-40i64..40, 0i64..3), 0..30), 0..6),
        orders in 1usize..40,
    ) {
        let mut table = table(&["number"]);
        let mut expected = Vec::new();
        for mut message in messages {
            // Few orders, one, or none to speak of.
            message.chunks_mut(orders).for_each(<[_]>::sort_unstable);
            expected.extend(message.iter().flat_map(|&(number, copies)| vec![number; copies as usize]));
            let rows: Vec<_> = message.iter().map(|&(number, copies)| (vec![Int(number)], copies)).collect();
            table.add(&changes(&rows)).unwrap();
            let lines = |numbers: &[i64]| numbers.iter().map(|number| format!("{number}\n")).collect::<String>();
            expected.sort_unstable();
            prop_assert_eq!(written(&mut table, &form("\t", false)), lines(&expected));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..60),
        cut in 0usize..80,
        flipped in prop::collection::vec((0usize..80, any::<u8>()), 0..3),
    ) {
        let types = ["symbol", "number", "float", "uuid", "bytes", "Tree", "List", "instant"];
        let mut table = table(&types);
        let _ = table.add(&bytes);
        let row = vec![
            Text("text"), Int(-300), Float(0.5), Bin(vec![7; 16]), Bin(vec![0; 3]),
            Branch("$Node", vec![Branch("$None", vec![]), Branch("$Leaf", vec![Uint(1)])]),
            List(vec![Int(1), Nil]), Seconds(5),
        ];
        let mut bytes = changes(&[(row.clone(), 1), (row, 2)]);
        bytes.truncate(bytes.len().saturating_sub(cut));
        for (at, byte) in flipped {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let added = table.add(&bytes).is_ok();
        let rows = table.rows();
        if rows < 1000 {
            prop_assert_eq!(written(&mut table, &form("|", false)).is_empty(), rows == 0);
        }
        prop_assert!(added || rows == 0 || table.rows() == rows);
    }
}
