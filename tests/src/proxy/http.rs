//! Just enough of HTTP/1.1 to take messages apart and to pass them on.

use std::io::{self, BufRead, Error, ErrorKind, Read};

/// How much a message may have before its body. A client of ours that sends more is wrong.
const LONGEST: u64 = 1 << 16;

/// First line and fields, as they came.
#[derive(Clone, Debug)]
pub struct Head {
    lines: Vec<String>,
}

/// A message. Its body is whole, whatever it was sent in: the head has its length.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Head {
    /// Reads one, or `None` where the other side has ended between messages.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Head>> {
        let mut from = from.take(LONGEST);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            match line.strip_suffix("\r\n") {
                Some("") if !lines.is_empty() => return Ok(Some(Head { lines })),
                Some(line) => lines.push(line.to_owned()),
                None if line.is_empty() && lines.is_empty() => return Ok(None),
                None => return Err(ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// One of an answer that is made up here.
    pub fn answer(status: &str, content: &str) -> Head {
        Head { lines: vec![format!("HTTP/1.1 {status}"), format!("Content-Type: {content}")] }
    }

    /// The words of the first line.
    pub fn first(&self) -> impl Iterator<Item = &str> {
        self.lines[0].split(' ')
    }

    /// The value of a field, whose name is given in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.lines[1..].iter().filter_map(|line| line.split_once(':'));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    /// Removes a field, if it is there.
    pub fn remove(&mut self, name: &str) {
        let first = self.lines.remove(0);
        let named =
            |line: &str| line.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name));
        self.lines.retain(|line| !named(line));
        self.lines.insert(0, first);
    }

    /// Is the connection closed behind this message?
    pub fn closes(&self) -> bool {
        let old = self.first().any(|word| word == "HTTP/1.0");
        old || self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.lines.join("\r\n").into_bytes();
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes
    }

    /// The length of the body that follows, if it is told.
    pub fn length(&self) -> io::Result<Option<usize>> {
        let parse = |text: &str| text.parse().map_err(|_| Error::other(format!("a length {text:?}")));
        self.field("content-length").map(parse).transpose()
    }

    fn chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    /// Says how long the body is.
    fn set_length(&mut self, length: usize) {
        self.remove("transfer-encoding");
        self.remove("content-length");
        self.lines.push(format!("Content-Length: {length}"));
    }
}

impl Message {
    /// One with a body that is made up here.
    pub fn new(mut head: Head, body: Vec<u8>) -> Message {
        head.set_length(body.len());
        Message { head, body }
    }

    /// Reads the body of a request.
    pub fn request(head: Head, from: &mut impl BufRead) -> io::Result<Message> {
        if head.chunked() {
            return Ok(Message::new(head, chunks(from)?));
        }
        let body = exactly(from, head.length()?.unwrap_or(0))?;
        Ok(Message { head, body })
    }

    /// Reads the answer to a request of this method.
    pub fn answer(method: &str, from: &mut impl BufRead) -> io::Result<Message> {
        let head = Head::read(from)?.ok_or(ErrorKind::UnexpectedEof)?;
        let status = head.first().nth(1).unwrap_or_default();
        if method == "HEAD" || status == "204" || status == "304" {
            return Ok(Message { head, body: Vec::new() });
        }
        if head.chunked() {
            return Ok(Message::new(head, chunks(from)?));
        }
        if let Some(length) = head.length()? {
            return Ok(Message { body: exactly(from, length)?, head });
        }
        let mut body = Vec::new();
        from.read_to_end(&mut body)?;
        Ok(Message::new(head, body))
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// So many bytes, and not fewer.
pub fn exactly(from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let wanted = u64::try_from(length).map_err(Error::other)?;
    from.take(wanted).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

/// A body in chunks, put together.
fn chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.take(LONGEST).read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(Error::other)?;
        if size == 0 {
            break;
        }
        body.extend(exactly(from, size)?);
        exactly(from, 2)?;
    }
    // What may follow the last one is dropped.
    loop {
        let mut line = String::new();
        from.take(LONGEST).read_line(&mut line)?;
        if line.trim_end().is_empty() {
            return Ok(body);
        }
    }
}
