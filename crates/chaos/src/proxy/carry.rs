//! Carries the bytes of one connection, both ways, through the weather that the proxy makes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};

use super::conversation::{Conversation, Heard, Said};
use super::wire::{Frame, Framer};
use super::{Cut, Shared, Tls, Weather};

/// Codes in the place of a version in the message that opens a connection.
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
/// The first byte of a connection that begins with TLS right away.
const TLS_HANDSHAKE: u8 = 0x16;

/// How a connection goes on after its opening.
enum Opened {
    /// The messages of the protocol can be read.
    Plain(Bytes),
    /// They cannot, or need not: bytes are carried as they are.
    Blind,
    /// It is over.
    Over,
}

/// One connection, until one side closes it, breaks the protocol, or is cut.
pub(super) async fn carry(client: TcpStream, shared: &Shared) {
    let weather = shared.weather.subscribe();
    // Nothing passes while nothing passes; not even that there is a server.
    calm(&mut weather.clone()).await;
    let Ok(server) = TcpStream::connect(&*shared.upstream).await else {
        reset(&client);
        return;
    };
    // Both sides answer at once; a delay is made on purpose or not at all.
    let _at_once = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client_read, mut client_write) = client.into_split();
    let (mut server_read, mut server_write) = server.into_split();
    let (mut out, mut back) = (weather.clone(), weather);
    match open(shared, &mut client_read, &mut client_write, &mut server_read, &mut server_write).await {
        Opened::Over => {}
        Opened::Blind => tokio::select! {
            () = blind(&mut client_read, &mut server_write, &mut out) => {}
            () = blind(&mut server_read, &mut client_write, &mut back) => {}
        },
        Opened::Plain(first) => {
            let line = Line { conversation: Mutex::default(), released: Notify::new() };
            tokio::select! {
                () = questions(client_read, &mut server_write, first, &line, shared, out) => {}
                () = answers(server_read, &mut client_write, &line, shared, back) => {}
            }
        }
    }
}

/// Both directions of one connection look at the same conversation.
struct Line {
    conversation: Mutex<Conversation>,
    /// Rings when an answer that was kept back has been given after all.
    released: Notify,
}

impl Line {
    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until bytes pass.
async fn calm(weather: &mut watch::Receiver<Weather>) {
    // The proxy outlives its connections, so that there is always a sender.
    let _gone = weather.wait_for(|weather| !weather.is_stalled).await;
}

/// Waits as long as bytes take.
async fn pass(weather: &mut watch::Receiver<Weather>) {
    let delay = weather.borrow().delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    calm(weather).await;
}

/// Closes a connection so that the other side sees a reset and not an end.
pub(super) fn reset(stream: &TcpStream) {
    // A stream that cannot be told is closed in the ordinary way.
    let _ordinary = stream.set_zero_linger();
}

/// The messages before the first one with a type.
async fn open(
    shared: &Shared,
    client: &mut OwnedReadHalf,
    to_client: &mut OwnedWriteHalf,
    server: &mut OwnedReadHalf,
    to_server: &mut OwnedWriteHalf,
) -> Opened {
    let mut framer = Framer::opening();
    loop {
        let frame = match framer.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                if client.read_buf(framer.buffer()).await.unwrap_or(0) == 0 {
                    return Opened::Over;
                }
                if framer.buffer().first() == Some(&TLS_HANDSHAKE) {
                    return blindly(shared, to_server, &framer.rest()).await;
                }
                continue;
            }
            Err(_) => return Opened::Over,
        };
        let code = frame.body().get(..4).map_or(0, |mut code| code.get_u32());
        match (code, shared.tls) {
            (SSL | GSS, Tls::Refuse) => {
                if to_client.write_all(b"N").await.is_err() {
                    return Opened::Over;
                }
            }
            (SSL | GSS, Tls::Pass) => {
                let mut answer = [0];
                let asked = to_server.write_all(&frame.bytes).await;
                let heard = match asked {
                    Ok(()) => server.read_exact(&mut answer).await,
                    Err(error) => Err(error),
                };
                if heard.is_err() || to_client.write_all(&answer).await.is_err() {
                    return Opened::Over;
                }
                if answer != *b"N" {
                    return Opened::Blind;
                }
            }
            (CANCEL, _) => return blindly(shared, to_server, &frame.bytes).await,
            _ => {
                framer.opened();
                if to_server.write_all(&frame.bytes).await.is_err() {
                    return Opened::Over;
                }
                return Opened::Plain(framer.rest());
            }
        }
    }
}

async fn blindly(shared: &Shared, to_server: &mut OwnedWriteHalf, first: &[u8]) -> Opened {
    let is_tls = first.first() == Some(&TLS_HANDSHAKE);
    if (is_tls && shared.tls == Tls::Refuse) || to_server.write_all(first).await.is_err() {
        return Opened::Over;
    }
    Opened::Blind
}

async fn blind(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, weather: &mut watch::Receiver<Weather>) {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    while from.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
        pass(weather).await;
        if to.write_all_buf(&mut buffer).await.is_err() {
            return;
        }
    }
}

/// What the client says.
async fn questions(
    mut client: OwnedReadHalf,
    server: &mut OwnedWriteHalf,
    first: Bytes,
    line: &Line,
    shared: &Shared,
    mut weather: watch::Receiver<Weather>,
) {
    let mut framer = Framer::typed();
    framer.buffer().extend_from_slice(&first);
    loop {
        let mut batch = BytesMut::new();
        loop {
            let frame = match framer.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return,
            };
            let cut = decide(line, shared, &frame);
            if cut == Some(Cut::Before) {
                // What came before the commit does reach the server, which rolls it back.
                let _sent = server.write_all_buf(&mut batch).await;
                shared.landed(Cut::Before);
                return;
            }
            batch.extend_from_slice(&frame.bytes);
            if line.conversation().is_waiting() {
                if server.write_all_buf(&mut batch).await.is_err() {
                    return;
                }
                line.released.notified().await;
            }
        }
        if !batch.is_empty() {
            pass(&mut weather).await;
            if server.write_all_buf(&mut batch).await.is_err() {
                return;
            }
        }
        if client.read_buf(framer.buffer()).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// What to do about a message of the client.
fn decide(line: &Line, shared: &Shared, frame: &Frame) -> Option<Cut> {
    let mut conversation = line.conversation();
    if conversation.said(frame) == Said::Plain {
        return None;
    }
    shared.counts.send_modify(|counts| counts.commits += 1);
    let cut = shared.take(conversation.transaction())?;
    if cut == Cut::After {
        conversation.keep(frame.tag);
    }
    Some(cut)
}

/// What the server says.
async fn answers(
    mut server: OwnedReadHalf,
    client: &mut OwnedWriteHalf,
    line: &Line,
    shared: &Shared,
    mut weather: watch::Receiver<Weather>,
) {
    let mut framer = Framer::typed();
    loop {
        let mut batch = BytesMut::new();
        loop {
            let frame = match framer.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return,
            };
            let heard = line.conversation().heard(&frame);
            match heard {
                Heard::Pass(bytes) => batch.extend_from_slice(&bytes),
                Heard::Kept => {}
                Heard::Committed => {
                    // What was asked before the commit is answered.
                    let _sent = client.write_all_buf(&mut batch).await;
                    shared.landed(Cut::After);
                    return;
                }
                Heard::Released(frames) => {
                    shared.missed();
                    frames.iter().for_each(|bytes| batch.extend_from_slice(bytes));
                    line.released.notify_one();
                }
            }
        }
        if !batch.is_empty() {
            pass(&mut weather).await;
            if client.write_all_buf(&mut batch).await.is_err() {
                return;
            }
        }
        if server.read_buf(framer.buffer()).await.unwrap_or(0) == 0 {
            return;
        }
    }
}
