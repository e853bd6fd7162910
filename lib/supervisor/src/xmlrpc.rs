//! XML-RPC as supervisord speaks it: a call to bytes, bytes to its answer.
//!
//! supervisord puts log text into `<string>` as it is, with control bytes (terminal colours, NUL) that XML forbids.
//! They are carried through the XML parser as characters of a private-use plane and come out as they went in.

use std::fmt::Write as _;

use roxmltree::{Document, Node, ParsingOptions};

/// Largest number of XML nodes in an answer.
const MAX_NODES: u32 = 400_000;
/// Largest number of values inside one another.
const MAX_DEPTH: usize = 32;
/// Stands for the illegal control character `c` at `CARRIER + c` while the XML is parsed.
const CARRIER: u32 = 0xF_0000;

/// Is a value of XML-RPC.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `<int>`, `<i4>`, `<i8>`; times after 2038 do not fit 32 bits.
    Int(i64),
    /// `<boolean>`.
    Bool(bool),
    /// `<double>`.
    Double(f64),
    /// `<string>`, or a value without a type.
    String(String),
    /// `<array>`.
    Array(Vec<Value>),
    /// `<struct>`, in the order of the document.
    Struct(Vec<(String, Value)>),
    /// `<nil/>`.
    Nil,
}

/// Is an answer of the server that says that a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (fault {code})")]
pub struct Fault {
    /// supervisord's fault code, see [`fault`].
    pub code: i64,
    /// Its text, such as `BAD_NAME: x`.
    pub text: String,
}

/// supervisord's fault codes.
pub mod fault {
    /// No such method.
    pub const UNKNOWN_METHOD: i64 = 1;
    /// Shutting down: only few calls are answered.
    pub const SHUTDOWN_STATE: i64 = 6;
    /// No such process or group.
    pub const BAD_NAME: i64 = 10;
    /// No such signal.
    pub const BAD_SIGNAL: i64 = 11;
    /// The command, or the log, does not exist.
    pub const NO_FILE: i64 = 20;
    /// The command cannot be executed.
    pub const NOT_EXECUTABLE: i64 = 21;
    /// The call failed for another reason.
    pub const FAILED: i64 = 30;
    /// The process ended before it was started.
    pub const ABNORMAL_TERMINATION: i64 = 40;
    /// The process could not be spawned.
    pub const SPAWN_ERROR: i64 = 50;
    /// The process is already started, or tries to.
    pub const ALREADY_STARTED: i64 = 60;
    /// The process is not running.
    pub const NOT_RUNNING: i64 = 70;
    /// Not a fault: the status of a member that did what was asked.
    pub const SUCCESS: i64 = 80;
    /// The group is known already.
    pub const ALREADY_ADDED: i64 = 90;
    /// The group has members that run.
    pub const STILL_RUNNING: i64 = 91;
    /// The configuration cannot be read; the running set is as it was.
    pub const CANT_REREAD: i64 = 92;
}

/// Tells why bytes are not an XML-RPC answer, or arguments not a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Not well-formed, with a DOCTYPE, or too many nodes.
    #[error("the answer is not XML: {0}")]
    Xml(#[from] roxmltree::Error),
    /// XML, but not an XML-RPC answer.
    #[error("the answer is not XML-RPC: {0}")]
    Shape(&'static str),
    /// An argument holds a character that XML cannot carry.
    #[error("{0:?} holds a character that cannot be sent")]
    Argument(String),
}

/// Writes a call as the body of a request.
///
/// # Errors
/// When the method or a string holds a character that XML cannot carry.
pub fn encode_call(method: &str, params: &[Value]) -> Result<String, CodecError> {
    let mut out = String::with_capacity(200);
    out.push_str("<?xml version=\"1.0\"?><methodCall><methodName>");
    push_text(&mut out, method)?;
    out.push_str("</methodName><params>");
    for param in params {
        out.push_str("<param>");
        push_value(&mut out, param)?;
        out.push_str("</param>");
    }
    out.push_str("</params></methodCall>");
    Ok(out)
}

/// Reads the body of an answer: the value, or the fault inside `Ok`.
///
/// # Errors
/// When the body is not an XML-RPC answer.
pub fn decode_response(body: &[u8]) -> Result<Result<Value, Fault>, CodecError> {
    let text = carry_controls(&String::from_utf8_lossy(body));
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&text, options)?;
    let root = document.root_element();
    if !root.has_tag_name("methodResponse") {
        return Err(CodecError::Shape("no methodResponse"));
    }
    let answer = root.first_element_child().ok_or(CodecError::Shape("an empty methodResponse"))?;
    match answer.tag_name().name() {
        "params" => {
            let param = answer.first_element_child().ok_or(CodecError::Shape("no param"))?;
            Ok(Ok(read_value(only_value(param)?, 0)?))
        }
        "fault" => Ok(Err(read_fault(&read_value(only_value(answer)?, 0)?)?)),
        _ => Err(CodecError::Shape("neither params nor fault")),
    }
}

fn read_fault(value: &Value) -> Result<Fault, CodecError> {
    let code = value.get("faultCode").and_then(Value::as_int);
    let text = value.get("faultString").and_then(Value::as_str);
    match (code, text) {
        (Some(code), Some(text)) => Ok(Fault { code, text: text.to_owned() }),
        _ => Err(CodecError::Shape("a fault without code and text")),
    }
}

fn only_value<'a, 'i>(parent: Node<'a, 'i>) -> Result<Node<'a, 'i>, CodecError> {
    parent.children().find(|n| n.has_tag_name("value")).ok_or(CodecError::Shape("no value"))
}

fn read_value(node: Node<'_, '_>, depth: usize) -> Result<Value, CodecError> {
    if depth > MAX_DEPTH {
        return Err(CodecError::Shape("values too deep inside one another"));
    }
    let Some(typed) = node.first_element_child() else { return Ok(Value::String(text_of(node))) };
    match typed.tag_name().name() {
        "int" | "i4" | "i8" => {
            text_of(typed).trim().parse().map(Value::Int).map_err(|_| CodecError::Shape("an int that is none"))
        }
        "boolean" => match text_of(typed).trim() {
            "1" => Ok(Value::Bool(true)),
            "0" => Ok(Value::Bool(false)),
            _ => Err(CodecError::Shape("a boolean that is neither 0 nor 1")),
        },
        "double" => {
            text_of(typed).trim().parse().map(Value::Double).map_err(|_| CodecError::Shape("a double that is none"))
        }
        "string" => Ok(Value::String(text_of(typed))),
        "nil" => Ok(Value::Nil),
        "array" => {
            let data = typed.first_element_child().ok_or(CodecError::Shape("an array without data"))?;
            let values = data.children().filter(|n| n.has_tag_name("value"));
            values.map(|n| read_value(n, depth + 1)).collect::<Result<_, _>>().map(Value::Array)
        }
        "struct" => {
            let members = typed.children().filter(|n| n.has_tag_name("member"));
            members.map(|m| read_member(m, depth)).collect::<Result<_, _>>().map(Value::Struct)
        }
        _ => Err(CodecError::Shape("a value of an unknown type")),
    }
}

fn read_member(member: Node<'_, '_>, depth: usize) -> Result<(String, Value), CodecError> {
    let name = member.children().find(|n| n.has_tag_name("name")).ok_or(CodecError::Shape("a member without name"))?;
    Ok((text_of(name), read_value(only_value(member)?, depth + 1)?))
}

/// The text of an element, with the characters that were carried put back.
fn text_of(node: Node<'_, '_>) -> String {
    let mut out = String::new();
    for part in node.children().filter(Node::is_text).filter_map(|n| n.text()) {
        out.extend(part.chars().map(|c| match u32::from(c).checked_sub(CARRIER) {
            Some(code @ 0..=0x1F) => char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
            _ => c,
        }));
    }
    out
}

/// Replaces what an XML parser refuses or changes: control characters (carriage returns, too: a parser turns them
/// into line feeds) are carried, the two non-characters and characters equal to a carrier are replaced by U+FFFD.
fn carry_controls(text: &str) -> String {
    text.chars()
        .map(|c| match u32::from(c) {
            0x09 | 0x0A => c,
            code @ 0..=0x1F => char::from_u32(CARRIER + code).unwrap_or(char::REPLACEMENT_CHARACTER),
            0xFFFE | 0xFFFF | 0xF_0000..=0xF_001F => char::REPLACEMENT_CHARACTER,
            _ => c,
        })
        .collect()
}

fn push_value(out: &mut String, value: &Value) -> Result<(), CodecError> {
    out.push_str("<value>");
    match value {
        Value::Int(n) => {
            // Python's decoder takes i8 and int alike, whatever the size.
            let _ = write!(out, "<int>{n}</int>");
        }
        Value::Bool(b) => {
            let _ = write!(out, "<boolean>{}</boolean>", u8::from(*b));
        }
        Value::Double(d) => {
            let _ = write!(out, "<double>{d}</double>");
        }
        Value::String(s) => {
            out.push_str("<string>");
            push_text(out, s)?;
            out.push_str("</string>");
        }
        Value::Array(values) => {
            out.push_str("<array><data>");
            values.iter().try_for_each(|v| push_value(out, v))?;
            out.push_str("</data></array>");
        }
        Value::Struct(members) => {
            out.push_str("<struct>");
            for (name, member) in members {
                out.push_str("<member><name>");
                push_text(out, name)?;
                out.push_str("</name>");
                push_value(out, member)?;
                out.push_str("</member>");
            }
            out.push_str("</struct>");
        }
        Value::Nil => out.push_str("<nil/>"),
    }
    out.push_str("</value>");
    Ok(())
}

fn push_text(out: &mut String, text: &str) -> Result<(), CodecError> {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' | '\n' | ' '..='\u{FFFD}' | '\u{1_0000}'.. => out.push(c),
            _ => return Err(CodecError::Argument(text.to_owned())),
        }
    }
    Ok(())
}

impl Value {
    /// The integer, when it is one.
    #[must_use]
    pub const fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// The text, when it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(s) => Some(s),
            _ => None,
        }
    }

    /// The truth value, when it is one.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// The elements, when it is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The member of that name, when it is a struct that has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Struct(members) => members.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

#[cfg(test)]
mod tests;
