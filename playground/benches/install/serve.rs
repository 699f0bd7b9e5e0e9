//! A server of files that copies no byte: `sendfile`, a thread for each connection.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) url: String,
}

/// Starts it as a process of its own.
pub(crate) fn start(folder: &Path) -> Server {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .arg(folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    Server { child, url: url.trim().to_owned() }
}

pub(crate) fn run(folder: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            scope.spawn(|| serve(stream.unwrap(), folder));
        }
    });
}

fn serve(mut stream: TcpStream, folder: &Path) {
    loop {
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => request.extend_from_slice(&buffer[..read]),
            }
        }
        let request = String::from_utf8(request).unwrap();
        let path = request.split(' ').nth(1).unwrap().trim_start_matches('/');
        let file = File::open(folder.join(path)).unwrap();
        let size = file.metadata().unwrap().len();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n").unwrap();
        let mut at = 0;
        while at < size {
            let left = usize::try_from(size - at).unwrap();
            // The other side may go before it has all.
            if rustix::fs::sendfile(&stream, &file, Some(&mut at), left).is_err() {
                return;
            }
        }
    }
}
