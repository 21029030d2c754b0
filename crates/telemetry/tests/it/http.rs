//! A server on a port of its own: reads requests over HTTP and hands each to the test, which answers it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// A request as it came.
pub(crate) struct Request {
    stream: TcpStream,
    /// The first line and the headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// None when the other side is gone before all of it came.
    fn read(stream: TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Self { stream: reader.into_inner(), head, body })
    }

    /// Answers it with a status and a body of JSON.
    pub(crate) fn answer(mut self, status: &str, body: &str) {
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
        let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        // Whoever asked may be gone.
        let _gone = self.stream.write_all(text.as_bytes());
    }
}

/// Hands out the requests to a listener, for as long as the test lasts.
pub(crate) fn serve(listener: TcpListener, mut take: impl FnMut(Request) + Send + 'static) {
    std::thread::spawn(move || {
        listener.incoming().map_while(Result::ok).filter_map(Request::read).for_each(&mut take);
    });
}

/// The same on a new port. Gives back its address.
pub(crate) fn listen(take: impl FnMut(Request) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    serve(listener, take);
    address
}
