//! Golden bytes as supervisord 4.2.5 sends them, and properties of the codec.

use proptest::prelude::*;

use super::*;

fn response(value: &str) -> String {
    format!(
        "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n{value}\n</param>\n</params>\n</methodResponse>\n"
    )
}

fn decode(value: &str) -> Value {
    decode_response(response(value).as_bytes()).unwrap().unwrap()
}

#[test]
fn a_call_is_written_as_supervisord_reads_it() {
    let call = encode_call("supervisor.startProcess", &["a<&>b:c".into(), false.into(), 7.into()]).unwrap();
    assert_eq!(
        call,
        "<?xml version=\"1.0\"?><methodCall><methodName>supervisor.startProcess</methodName><params>\
         <param><value><string>a&lt;&amp;&gt;b:c</string></value></param>\
         <param><value><boolean>0</boolean></value></param>\
         <param><value><int>7</int></value></param></params></methodCall>"
    );
}

#[test]
fn a_struct_in_an_array_is_read() {
    let value = decode(
        "<value><array><data>\n<value><struct>\n<member>\n<name>pid</name>\n<value><int>4294967297</int></value>\n\
         </member>\n<member>\n<name>name</name>\n<value><string>x</string></value>\n</member>\n</struct></value>\n\
         </data></array></value>",
    );
    let first = &value.as_array().unwrap()[0];
    assert_eq!(first.get("pid").unwrap().as_int(), Some(4_294_967_297));
    assert_eq!(first.get("name").unwrap().as_str(), Some("x"));
    assert_eq!(first.get("none"), None);
}

#[test]
fn a_fault_is_an_answer() {
    let body = "<?xml version='1.0'?><methodResponse><fault><value><struct><member><name>faultCode</name>\
                <value><int>10</int></value></member><member><name>faultString</name><value><string>BAD_NAME: x\
                </string></value></member></struct></value></fault></methodResponse>";
    let fault = decode_response(body.as_bytes()).unwrap().unwrap_err();
    assert_eq!((fault.code, fault.text.as_str()), (fault::BAD_NAME, "BAD_NAME: x"));
}

#[test]
fn control_bytes_that_xml_forbids_survive() {
    let value = decode("<value><string>\u{1b}[31mred\u{1b}[0m\0\r\n\ttail</string></value>");
    assert_eq!(value.as_str(), Some("\u{1b}[31mred\u{1b}[0m\0\r\n\ttail"));
}

#[test]
fn bytes_that_are_not_utf8_become_replacement_characters() {
    let mut body = response("<value><string>ab@</string></value>").into_bytes();
    let at = body.iter().position(|b| *b == b'@').unwrap();
    body[at] = 0xFF;
    assert_eq!(decode_response(&body).unwrap().unwrap().as_str(), Some("ab\u{FFFD}"));
}

#[test]
fn a_document_type_is_refused() {
    let body = "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a \"b\">]><methodResponse><params><param><value>\
                <string>&a;</string></value></param></params></methodResponse>";
    assert!(matches!(decode_response(body.as_bytes()), Err(CodecError::Xml(_))));
}

#[test]
fn arguments_that_xml_cannot_carry_are_refused() {
    assert!(matches!(encode_call("x", &["a\0".into()]), Err(CodecError::Argument(_))));
}

#[test]
fn values_nested_too_deeply_are_refused() {
    let deep = "<value><array><data>".repeat(60) + &"</data></array></value>".repeat(60);
    assert!(decode_response(response(&deep).as_bytes()).is_err());
}

fn text() -> impl Strategy<Value = String> {
    // Everything an answer can hold but the carriers, which are replaced.
    "[\\x01-\\x{D7FF}\\x{E000}-\\x{FFFD}\\x{10000}-\\x{EFFFF}]{0,12}"
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        any::<bool>().prop_map(Value::Bool),
        (-1e9..1e9).prop_map(Value::Double),
        text().prop_map(Value::String),
        Just(Value::Nil),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::vec((text(), inner), 0..5).prop_map(Value::Struct),
        ]
    })
}

/// Writes a value as Python's `xmlrpc.client` does: only `&`, `<` and `>` are escaped, control bytes are not.
fn as_python_writes(value: &Value) -> String {
    let escape = |s: &str| s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let inner = match value {
        Value::Int(n) => format!("<int>{n}</int>"),
        Value::Bool(b) => format!("<boolean>{}</boolean>", u8::from(*b)),
        Value::Double(d) => format!("<double>{d}</double>"),
        Value::String(s) => format!("<string>{}</string>", escape(s)),
        Value::Nil => "<nil/>".to_owned(),
        Value::Array(vs) => {
            let items: Vec<_> = vs.iter().map(as_python_writes).collect();
            format!("<array><data>\n{}\n</data></array>", items.join("\n"))
        }
        Value::Struct(ms) => {
            let members = ms
                .iter()
                .map(|(n, v)| format!("<member>\n<name>{}</name>\n{}\n</member>", escape(n), as_python_writes(v)));
            format!("<struct>\n{}\n</struct>", members.collect::<Vec<_>>().join("\n"))
        }
    };
    format!("<value>{inner}</value>")
}

proptest! {
    #[test]
    fn every_value_that_python_writes_is_read_back(value in any_value()) {
        prop_assert_eq!(decode(&as_python_writes(&value)), value);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_response(&bytes);
    }

    #[test]
    fn a_damaged_answer_is_read_without_panic(value in any_value(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut body = response(&as_python_writes(&value)).into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = decode_response(&body);
    }

    #[test]
    fn what_we_write_as_argument_is_what_a_server_reads(argument in "[ -~\u{80}-\u{2FF}\n\t]{0,20}") {
        let call = encode_call("m", &[argument.as_str().into()]).unwrap();
        let document = Document::parse(&call).unwrap();
        let string = document.descendants().find(|n| n.has_tag_name("string")).unwrap();
        prop_assert_eq!(string.text().unwrap_or_default(), argument);
    }
}
