// A room member in a real browser: headless Chromium, whose page opens WebSockets and WebTransport sessions itself.
//
// What lives here: starting Chromium, one page that connects, the way between it and the test. What does not: any judgement
// about what it saw; the test that started it judges (`crates/testkit/src/peers.rs`).
//
//     node browser.mjs [--websocket URL] [--webtransport URL --hash BASE64] [--deadline SECONDS]
//
// At least one of the two. Commands and events are those of python_websockets.py, one JSON object a line; commands carry
// "via" ("websocket" or "webtransport") to say which connection is meant, and WebTransport knows two more:
//
//     {"do": "send_hex", "via": "webtransport", "hex": "...", "datagram": true}   one datagram
//     {"event": "closed", "via": "webtransport", "code": 1001, "reason": "..."}   the session's close code; null: it broke
//
// The end of standard input means: close and go. Exit codes: 0 all connections closed, 1 failed, 3 the deadline passed.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    websocket: { type: 'string' },
    webtransport: { type: 'string' },
    hash: { type: 'string' },
    deadline: { type: 'string', default: '60' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
  },
});

const report = (event) => process.stdout.write(JSON.stringify(event) + '\n');
let browser;
let leaving = false;

// Ends the process; Chromium goes with it. Only the first call counts: what fails after it fails because of it.
async function leave(code) {
  if (leaving) return;
  leaving = true;
  await browser?.close().catch(() => {});
  process.exit(code);
}

function fail(message, code = 1) {
  if (!leaving) report({ event: 'failed', via: 'browser', message: String(message) });
  return leave(code);
}

setTimeout(() => fail(`the deadline of ${options.deadline} s passed`, 3), Number(options.deadline) * 1000);

// A page from http://localhost is a secure context, which WebTransport asks for. Chromium refuses some ports, all of them at
// most 10080, so a port from down there is given back.
const HIGHEST_REFUSED_PORT = 10080;
async function servePage() {
  for (;;) {
    const server = createServer((_, response) => {
      response.setHeader('content-type', 'text/html');
      response.end('<!doctype html><title>peer</title>');
    });
    await new Promise((resolve, reject) => server.once('error', reject).listen(0, 'localhost', resolve));
    const { port } = server.address();
    if (port > HIGHEST_REFUSED_PORT) return `http://localhost:${port}/`;
    server.close();
  }
}

// Runs in the page. Everything it needs is inside; `report` is the way out.
function member({ websocket, webtransport, hash }) {
  const report = (event) => globalThis.reportToTest(event);
  const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  const fromHex = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));

  const varint = (value) => {
    const out = [];
    for (; value > 0x7f; value >>>= 7) out.push((value & 0x7f) | 0x80);
    return [...out, value];
  };
  const field = (number, content) => [...varint((number << 3) | 2), ...varint(content.length), ...content];
  // A PacketWrapper (MEDIA) around a MediaPacket (AUDIO) whose data is the number in 4 bytes, then filler.
  const numberedPacket = (email, number, size) => {
    const user = new TextEncoder().encode(email);
    const data = new Uint8Array(Math.max(4, size));
    new DataView(data.buffer).setUint32(0, number);
    const media = [0x08, 0x01, ...field(2, user), ...field(3, data)];
    return Uint8Array.from([0x08, 0x02, ...field(2, user), ...field(3, media)]);
  };

  function openWebSocket(url) {
    const via = 'websocket';
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    const opened = new Promise((resolve) => {
      socket.onopen = async () => resolve(await report({ event: 'open', via }));
    });
    socket.onmessage = ({ data }) =>
      report(
        typeof data === 'string'
          ? { event: 'failed', via, message: 'a text message came' }
          : { event: 'packet', via, hex: toHex(new Uint8Array(data)), datagram: false },
      );
    const closed = new Promise((resolve) => {
      socket.onclose = async ({ code, reason }) => {
        await report({ event: 'closed', via, code, reason });
        resolve();
      };
    });
    const send = async (bytes) => {
      await Promise.race([opened, closed]);
      socket.send(bytes);
    };
    return { send, close: (code) => socket.close(code), closed };
  }

  function openWebTransport(url, hash) {
    const via = 'webtransport';
    const value = Uint8Array.from(atob(hash), (character) => character.charCodeAt(0));
    const session = new WebTransport(url, { serverCertificateHashes: [{ algorithm: 'sha-256', value }] });

    // One packet per stream; read one after the other, so that packets are reported in the order of the streams.
    const receiveStreams = async () => {
      for await (const stream of session.incomingUnidirectionalStreams) {
        const packet = new Uint8Array(await new Response(stream).arrayBuffer());
        await report({ event: 'packet', via, hex: toHex(packet), datagram: false });
      }
    };
    const receiveDatagrams = async () => {
      for await (const datagram of session.datagrams.readable) {
        await report({ event: 'packet', via, hex: toHex(datagram), datagram: true });
      }
    };
    // What came before the close is told before it.
    const received = session.ready.then(async () => {
      await report({ event: 'open', via });
      return Promise.allSettled([receiveStreams(), receiveDatagrams()]);
    });
    const end = async (code, reason) => {
      await received.catch(() => {}); // it never opened: the reason says why
      await report({ event: 'closed', via, code, reason });
    };
    const closed = session.closed.then(
      ({ closeCode, reason }) => end(closeCode, reason),
      (error) => end(null, String(error)),
    );

    let datagrams;
    const send = async (bytes, datagram) => {
      if (datagram) {
        datagrams ??= (session.datagrams.createWritable?.() ?? session.datagrams.writable).getWriter();
        return datagrams.write(bytes);
      }
      const writer = (await session.createUnidirectionalStream()).getWriter();
      await writer.write(bytes);
      return writer.close();
    };
    return { send, close: (closeCode) => session.close({ closeCode, reason: '' }), closed };
  }

  const connections = {};
  if (websocket) connections.websocket = openWebSocket(websocket);
  if (webtransport) connections.webtransport = openWebTransport(webtransport, hash);

  globalThis.obey = async (command) => {
    const via = command.via ?? Object.keys(connections)[0];
    const connection = connections[via];
    switch (command.do) {
      case 'send':
        for (let number = 0; number < command.count; number++) {
          await connection.send(numberedPacket(command.email, number, command.bytes), false);
        }
        return report({ event: 'sent', via, count: command.count });
      case 'send_hex':
        await connection.send(fromHex(command.hex), command.datagram ?? false);
        return report({ event: 'sent', via, count: 1 });
      case 'close':
        return connection.close(command.code);
      default:
        throw new Error(`unknown command ${command.do}`);
    }
  };
  globalThis.closeAll = () => Object.values(connections).forEach((connection) => connection.close(1000));
  // Kept on the page: a promise returned from here would be awaited before the commands are.
  globalThis.allClosed = Promise.all(Object.values(connections).map((connection) => connection.closed));
}

async function visit() {
  if (!options.websocket && !options.webtransport) throw new Error('nothing to connect to');
  const tools = new URL('../../../.tools/node/', import.meta.url);
  const { chromium } = createRequire(tools)('playwright-core');
  browser = await chromium.launch({
    executablePath: options.chromium,
    args: [
      '--headless',
      '--no-sandbox', // Chromium refuses to run as root with it
      '--disable-gpu',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
  const page = await browser.newPage(); // in a fresh profile
  page.on('pageerror', (error) => fail(`the page failed: ${error}`));
  page.on('crash', () => fail('the page crashed'));
  await page.exposeFunction('reportToTest', report);
  await page.goto(await servePage());
  await page.evaluate(member, options);

  // Commands are obeyed one at a time, in order.
  const obey = async () => {
    for await (const line of createInterface({ input: process.stdin })) {
      await page.evaluate((command) => globalThis.obey(command), JSON.parse(line));
    }
    await page.evaluate(() => globalThis.closeAll());
  };
  obey().catch(fail);
  await page.evaluate(() => globalThis.allClosed.then(() => {}));
}

visit().then(() => leave(0), fail);
