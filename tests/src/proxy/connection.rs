//! One client's connection, and what becomes of each of its requests.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;

use super::http::{Head, Message, exactly};
use super::rules::{Fault, Number, Request};
use super::shared::{Asked, Kept, Shared};

/// What S3 says with a status that is made up here.
struct Told {
    status: &'static str,
    code: &'static str,
    text: &'static str,
}

const ERROR: Told = Told {
    status: "500 Internal Server Error",
    code: "InternalError",
    text: "We encountered an internal error. Please try again.",
};
const SLOW_DOWN: Told =
    Told { status: "503 Slow Down", code: "SlowDown", text: "Please reduce your request rate." };

impl Told {
    /// The answer; one to HEAD has no body.
    fn to(&self, request: &Request) -> Message {
        let Told { status, code, text } = self;
        let start = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
        let body = format!("{start}\n<Error><Code>{code}</Code><Message>{text}</Message></Error>");
        let mut message = Message::new(Head::answer(status, "application/xml"), body.into_bytes());
        if request.method == "HEAD" {
            message.body.clear();
        }
        message
    }
}

/// A connection that was taken.
pub struct Connection {
    shared: Arc<Shared>,
    client: TcpStream,
    from: BufReader<TcpStream>,
    _kept: Kept,
}

/// Is there another request to be expected?
type GoesOn = bool;

impl Connection {
    /// Serves a client until it, or a fault, ends the connection.
    pub fn serve(shared: &Arc<Shared>, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let (kept, from) = (shared.keep(&client)?, BufReader::new(client.try_clone()?));
        let mut connection = Connection { shared: Arc::clone(shared), client, from, _kept: kept };
        while let Some(head) = Head::read(&mut connection.from)? {
            if !connection.act(head)? {
                break;
            }
        }
        Ok(())
    }

    /// Does what the rules say of the request with this head.
    fn act(&mut self, mut head: Head) -> io::Result<GoesOn> {
        let request = {
            let mut words = head.first();
            Request::new(words.next().unwrap_or_default(), words.next().unwrap_or_default())
        };
        let (fault, rule) = self.shared.note(&request);
        match fault {
            Fault::Refuse => return Ok(false),
            Fault::Stall => {
                self.shared.wait_for_end();
                return Ok(false);
            }
            _ => {}
        }
        if head.field("expect").is_some() {
            // The upstream needn't be asked.
            head.remove("expect");
            self.client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if let Fault::CutRequest(bytes) = fault {
            self.cut(&request, &head, bytes)?;
            return Ok(false);
        }
        let closes = head.closes();
        let message = Message::request(head, &mut self.from)?;
        self.shared.count(&request, message.body.len(), 0);
        if fault == Fault::Hold && !self.released(rule) {
            return Ok(false);
        }
        let mut answer = match fault {
            Fault::Error => ERROR.to(&request),
            Fault::SlowDown => SLOW_DOWN.to(&request),
            Fault::Stale => match self.shared.remembered(&asked(&request, &message.head)) {
                Some(answer) => answer,
                None => self.ask(&request, &message)?,
            },
            _ => self.ask(&request, &message)?,
        };
        if fault.is_behind() {
            rule.inspect(|number| self.shared.apply(*number));
        }
        match fault {
            Fault::LoseAnswer => return Ok(false),
            Fault::HoldAnswer if !self.released(rule) => return Ok(false),
            Fault::SpoilAnswer => answer = ERROR.to(&request),
            _ => {}
        }
        let start = answer.head.bytes().len();
        let mut bytes = answer.bytes();
        match fault {
            Fault::CutAnswer(length) => bytes.truncate(length),
            Fault::Truncate(length) => bytes.truncate(start + length),
            _ => {}
        }
        self.shared.count(&request, 0, bytes.len().saturating_sub(start));
        self.client.write_all(&bytes)?;
        let cut = matches!(fault, Fault::CutAnswer(_) | Fault::Truncate(_));
        Ok(!closes && !cut && !answer.head.closes())
    }

    /// Gives the upstream so many bytes of a request that goes on, and no more.
    fn cut(&mut self, request: &Request, head: &Head, length: usize) -> io::Result<()> {
        let mut bytes = head.bytes();
        let body = length.saturating_sub(bytes.len()).min(head.length()?.unwrap_or(0));
        bytes.extend(exactly(&mut self.from, body)?);
        bytes.truncate(length);
        self.shared.count(request, body, 0);
        let (mut upstream, _kept) = self.upstream()?;
        upstream.write_all(&bytes)
    }

    /// Has the upstream answer.
    fn ask(&self, request: &Request, message: &Message) -> io::Result<Message> {
        let (mut upstream, _kept) = self.upstream()?;
        upstream.write_all(&message.bytes())?;
        let answer = Message::answer(&request.method, &mut BufReader::new(upstream))?;
        if request.method == "GET" {
            self.shared.remember(asked(request, &message.head), &answer);
        }
        Ok(answer)
    }

    /// A connection for one request.
    fn upstream(&self) -> io::Result<(TcpStream, Kept)> {
        let upstream = TcpStream::connect(&self.shared.upstream)?;
        upstream.set_nodelay(true)?;
        let kept = self.shared.keep(&upstream)?;
        Ok((upstream, kept))
    }

    /// Waits until a rule is released; false if the connection ends before.
    fn released(&self, rule: Option<Number>) -> bool {
        rule.is_none_or(|number| self.shared.wait_for_release(number))
    }
}

/// What an answer is an answer to.
fn asked(request: &Request, head: &Head) -> Asked {
    (request.clone(), head.field("range").map(str::to_owned))
}
