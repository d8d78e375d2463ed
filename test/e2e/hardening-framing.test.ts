import net from 'node:net'
import t from 'tap'
import { type Door, HOST, startDoor } from '../support/door.ts'
import { startGateway } from '../support/gateway.ts'
import { type RawAnswer, raw } from '../support/raw.ts'
import { until } from '../support/until.ts'
import { startRawUpstream, startUpstream } from '../support/upstream.ts'

/** Sends the start of a request, waits until the service has got as far as `sign`, and sends the rest. */
async function send(door: Door, head: string, sign: string, rest: string): Promise<RawAnswer> {
  const before = door.received().length
  let text = ''
  const socket = net.connect({ port: door.port, host: '127.0.0.1', allowHalfOpen: true })
  const closed = new Promise<boolean>(resolve => socket.on('end', () => resolve(true)).on('error', () => resolve(true)))
  socket.on('data', chunk => {
    text += chunk.toString('latin1')
  })
  socket.write(head, 'latin1')
  await until(() => door.received().includes(sign, before))
  socket.write(rest, 'latin1')
  await closed
  socket.destroy()
  return { text, status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0), closed: true }
}

const post = (fields: string, body = '') => `POST / HTTP/1.1\r\n${HOST}${fields}\r\n${body}`

t.test('H-1 TRC-06 Content-Length and Transfer-Encoding together are refused', async t => {
  const door = await startDoor(t)
  await door.refuses(t, 'length first', post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'))
  await door.refuses(t, 'coding first', post('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', '0\r\n\r\n'))
  await door.refuses(t, 'a length of nothing', post('Content-Length: 0\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'))
  await door.refuses(t, 'another coding', post('Content-Length: 5\r\nTransfer-Encoding: identity\r\n', 'hello'))
  await door.refuses(
    t,
    'with GET',
    `GET / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`
  )
})

t.test('H-2 H-3 two lengths are refused, whether they agree or not', async t => {
  const door = await startDoor(t)
  await door.refuses(t, 'two fields', post('Content-Length: 5\r\nContent-Length: 6\r\n', 'hello'))
  await door.refuses(t, 'a list', post('Content-Length: 5, 6\r\n', 'hello'))
  await door.refuses(t, 'two equal fields', post('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello'))
  await door.refuses(t, 'a list of equals', post('Content-Length: 5, 5\r\n', 'hello'))
  await door.refuses(t, 'nothing, then something', post('Content-Length: 0\r\nContent-Length: 5\r\n', 'hello'))
  await door.refuses(t, 'other case', post('content-length: 5\r\nCONTENT-LENGTH: 6\r\n', 'hello'))
})

t.test('H-4 a length that is no plain number is refused', async t => {
  const door = await startDoor(t)
  for (const length of [
    '+5',
    '-5',
    '-0',
    '0x5',
    '1_0',
    '5.0',
    '5e0',
    '18446744073709551621',
    '',
    ' ',
    '5 5',
    '5;',
    '"5"',
    'five',
    '٥',
    '5\x0b',
    '\xa05'
  ]) {
    await door.refuses(t, JSON.stringify(length), post(`Content-Length: ${length}\r\n`, 'hello'))
  }
})

t.test('H-4 TRC-04 a length that no number holds exactly is too large, not rounded', async t => {
  const door = await startDoor(t)
  for (const length of ['9007199254740993', '9223372036854775807', '18446744073709551615']) {
    await door.refuses(t, length, post(`Content-Length: ${length}\r\n`, 'hello'), {
      status: 413,
      reason: 'content_length'
    })
  }
})

t.test('H-5 only chunked is a transfer coding, once', async t => {
  const door = await startDoor(t)
  for (const coding of [
    'identity',
    'cow',
    'gzip',
    'gzip, chunked',
    'chunked, gzip',
    'chunked, identity',
    'identity, chunked',
    'chunked, chunked',
    'chunked,',
    ',chunked',
    ''
  ]) {
    await door.refuses(t, JSON.stringify(coding), post(`Transfer-Encoding: ${coding}\r\n`, '0\r\n\r\n'))
  }
  await door.refuses(t, 'two fields', post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'))
  await door.refuses(
    t,
    'identity, then chunked',
    post('Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')
  )
  await door.refuses(
    t,
    'chunked, then identity',
    post('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', '0\r\n\r\n')
  )
})

/** `Transfer-Encoding: chunked` as nobody should write it: what one server overlooks and another does not. */
function obfuscations(): string[] {
  const odd = [
    '\0',
    '\x01',
    '\b',
    '\t',
    '\v',
    '\f',
    '\x1b',
    ' ',
    '\x7f',
    '\x80',
    '\x85',
    '\xa0',
    '\xad',
    '\xff',
    ',',
    ';',
    '"',
    "'",
    '=',
    '\\',
    '(',
    ')',
    '_',
    '-',
    '.',
    '\r',
    '\n',
    '\r\n ',
    '\r\n\t',
    '\n ',
    '\r '
  ]
  const at = (text: string, i: number, piece: string): string => text.slice(0, i) + piece + text.slice(i)
  const lines: string[] = []
  for (const piece of odd) {
    for (const i of [0, 1, 8, 17]) lines.push(`${at('Transfer-Encoding', i, piece)}: chunked`)
    for (const i of [0, 3, 7]) lines.push(`Transfer-Encoding: ${at('chunked', i, piece)}`)
    lines.push(
      `Transfer-Encoding: x${piece}chunked`,
      `Transfer-Encoding: chunked${piece}x`,
      `Transfer-Encoding:${piece}chunked`,
      `Transfer-Encoding${piece}:${piece}chunked${piece}`
    )
  }
  // An empty line would be the end of the head.
  return lines.filter(line => !line.startsWith('\r\n'))
}

/** Optional white space is what everybody reads in the same way. */
const PLAIN = /^Transfer-Encoding:[ \t]*chunked *$/

t.test('H-6 an obfuscated Transfer-Encoding is refused, and never passed on', async t => {
  const door = await startDoor(t)
  const variants = obfuscations()
  const plain = variants.filter(line => PLAIN.test(line))
  t.ok(variants.length > 300, `${variants.length} variants`)
  for (const line of variants.filter(line => !PLAIN.test(line))) {
    const before = door.received().length
    const answer = await raw(door.port, `POST / HTTP/1.1\r\n${HOST}${line}\r\n\r\n5\r\nhello\r\n0\r\n\r\n`)
    if (answer.status !== 400 || !answer.closed || door.received().length !== before)
      t.fail(`${JSON.stringify(line)}: ${answer.status}, and on went ${door.received().slice(before)}`)
  }
  for (const line of plain) {
    const before = door.received().length
    const answer = await raw(door.port, `POST / HTTP/1.1\r\n${HOST}${line}\r\n\r\n5\r\nhello\r\n0\r\n\r\n`, {
      quietMs: 20
    })
    t.equal(answer.status, 200, JSON.stringify(line))
    t.match(door.received().slice(before), /\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n$/i)
  }
})

t.test('H-6 H-7 names that only look like framing are refused', async t => {
  const door = await startDoor(t)
  for (const name of [
    'Transfer_Encoding',
    'transfer_encoding',
    'Content_Length',
    'TransferEncoding',
    'Transfer--Encoding',
    'Content.Length',
    'Content-Length-',
    '!Content-Length'
  ]) {
    await door.refuses(t, name, `POST / HTTP/1.1\r\n${HOST}${name}: chunked\r\n\r\n`, { reason: 'framing_look_alike' })
  }
})

t.test('H-8 H-9 H-10 a head that is not to the letter is refused', async t => {
  const door = await startDoor(t)
  const get = (fields: string): string => `GET / HTTP/1.1\r\n${HOST}${fields}\r\n`
  await door.refuses(
    t,
    'H-8 chunks in HTTP/1.0',
    `POST / HTTP/1.0\r\n${HOST}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    { reason: 'chunked_in_http_1_0' }
  )
  await door.refuses(t, 'H-9 a space before the colon', get('X-Name : value\r\n'))
  await door.refuses(t, 'H-9 a tab before the colon', get('X-Name\t: value\r\n'))
  await door.refuses(t, 'H-9 a folded line', get('X-Name: value\r\n more\r\n'))
  await door.refuses(t, 'H-9 a folded line of nothing', get('X-Name: value\r\n \r\n'))
  await door.refuses(t, 'H-9 a space before the first field', `GET / HTTP/1.1\r\n ${HOST}\r\n`)
  await door.refuses(t, 'H-9 a tab before the first field', `GET / HTTP/1.1\r\n\t${HOST}\r\n`)
  await door.refuses(t, 'H-9 no colon', get('X-Name\r\n'))
  await door.refuses(t, 'H-9 no name', get(': value\r\n'))
  await door.refuses(t, 'H-9 a space in a name', get('X Name: value\r\n'))
  await door.refuses(t, 'H-10 a bare CR in a value', get('X-Name: a\rb\r\n'))
  await door.refuses(t, 'H-10 a bare CR in a name', get('X-\rName: a\r\n'))
  await door.refuses(t, 'H-10 a bare LF at the end of a line', get('X-Name: a\n'))
  await door.refuses(t, 'H-10 bare LF at the end of all lines', get('').replaceAll('\r\n', '\n'))
  await door.refuses(t, 'H-10 a head that ends in LF', `GET / HTTP/1.1\r\n${HOST}\n`)
  await door.refuses(t, 'H-10 CR CR LF', get('X-Name: a\r\r\n'))
  for (const code of [...Array.from({ length: 32 }, (_, i) => i), 127]) {
    const char = String.fromCharCode(code)
    if (char === '\n' || char === '\r') continue
    if (char !== '\t') await door.refuses(t, `H-10 control ${code} in a value`, get(`X-Name: a${char}b\r\n`))
    await door.refuses(t, `H-10 control ${code} in a name`, get(`X-N${char}ame: a\r\n`))
  }
  await door.refuses(t, 'H-10 a byte beyond ASCII in a name', get('X-N\xe9: a\r\n'))
})

t.test(
  'H-11 H-12 a body of bad chunks is refused, and the request to the service is aborted, not completed',
  async t => {
    const door = await startDoor(t)
    const chunks: [name: string, bytes: string][] = [
      ['an empty size', '\r\nhello\r\n0\r\n\r\n'],
      ['a size with 0x', '0x5\r\nhello\r\n0\r\n\r\n'],
      ['a size with a plus', '+5\r\nhello\r\n0\r\n\r\n'],
      ['a size with a minus', '-5\r\nhello\r\n0\r\n\r\n'],
      ['a size with an underscore', '1_0\r\nhello\r\n0\r\n\r\n'],
      ['a size after a space', ' 5\r\nhello\r\n0\r\n\r\n'],
      ['a size that is no number', 'five\r\nhello\r\n0\r\n\r\n'],
      ['a size beyond 64 bits', '10000000000000005\r\nhello\r\n0\r\n\r\n'],
      ['a size beyond all', `${'f'.repeat(40)}\r\nhello\r\n0\r\n\r\n`],
      ['a size that ends in LF', '5\nhello\r\n0\r\n\r\n'],
      ['a size that ends in CR', '5\rhello\r\n0\r\n\r\n'],
      ['data that end in LF', '5\r\nhello\n0\r\n\r\n'],
      ['data that do not end', '5\r\nhello0\r\n\r\n'],
      ['data that go on', '5\r\nhello world\r\n0\r\n\r\n'],
      ['a bare LF in an extension', '5;a\nb\r\nhello\r\n0\r\n\r\n'],
      ['a bare CR in an extension', '5;a\rb\r\nhello\r\n0\r\n\r\n'],
      ['an extension that ends in LF', '5;a\nhello\r\n0\r\n\r\n'],
      ['NUL in an extension', '5;a=\0\r\nhello\r\n0\r\n\r\n'],
      ['extensions of 20 kB', `5;a=${'b'.repeat(20_480)}\r\nhello\r\n0\r\n\r\n`],
      ['a trailer that is no field', '0\r\nno field\r\n\r\n'],
      ['a last chunk that ends in LF', '0\n\n'],
      ['a trailer that ends in LF', '0\r\nX-Name: a\n\r\n']
    ]
    for (const [name, bytes] of chunks) {
      const before = { received: door.received().length, lines: door.lines().length, cut: door.cut() }
      // One good chunk has to have gone on before: the request at the service is under way.
      const head = `POST /${name.replaceAll(' ', '-')} HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n`
      const answer = await send(
        door,
        head,
        '\r\n4\r\ngood',
        `${bytes}GET /smuggled HTTP/1.1\r\nHost: door.test\r\n\r\n`
      )
      await until(() => door.cut() > before.cut)
      const reached = door.received().slice(before.received)
      t.equal(answer.status, 400, name)
      t.ok(answer.closed, `${name}: the connection is closed`)
      t.match(reached, /\r\n4\r\ngood/, `${name}: the service had it begun`)
      t.notMatch(reached, /0\r\n\r\n$/, `${name}: the service does not see an end`)
      t.notMatch(reached, /smuggled/, `${name}: nothing behind it is taken for a request`)
      const lines = door.lines().slice(before.lines)
      t.match(lines, [{ status_code: 400, reason: /^HPE_/ }], `${name}: one line`)
      t.equal(lines.length, 1)
    }
  }
)

t.test('H-11 a body that goes wrong after the answer has begun cuts the connection', async t => {
  const service = await startRawUpstream(t, (socket, received) => {
    if (received.endsWith('good')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nearly')
  })
  const gateway = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const socket = net.connect(gateway.port, '127.0.0.1')
  let text = ''
  socket.on('error', () => {})
  socket.write(`POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n`)
  await new Promise<void>(resolve =>
    socket.on('data', chunk => {
      text += chunk
      if (text.endsWith('early')) resolve()
    })
  )
  const closed = new Promise(resolve => socket.on('close', resolve))
  socket.write('oops\r\n')
  await closed
  t.match(text, /^HTTP\/1\.1 200/)
  t.equal(text.match(/HTTP\/1\.1/g)?.length, 1, 'no second answer within the first')
  await gateway.line({ status_code: 200, aborted: true })
})

t.test('H-13 nothing of a trailer is taken for a header', async t => {
  const door = await startDoor(t)
  const trailer =
    'Authorization: Basic trailing\r\nHost: trailing.test\r\nX-User-Id: trailing\r\nX-Forwarded-For: 192.0.2.99\r\nX-Any: trailing\r\n'
  const answer = await raw(
    door.port,
    `POST / HTTP/1.1\r\n${HOST}Trailer: Authorization\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n${trailer}\r\n`
  )
  t.equal(answer.status, 200)
  t.match(door.received(), /\r\n\r\n5\r\nhello\r\n0\r\n\r\n$/, 'the body has come, without a trailer')
  t.notMatch(door.received(), /trailing|192\.0\.2\.99/)
  for (const framing of ['Content-Length: 99', 'Transfer-Encoding: gzip', 'Transfer-Encoding: chunked']) {
    const before = door.received().length
    const refused = await raw(
      door.port,
      `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n${framing}\r\n\r\n`
    )
    t.equal(refused.status, 400, framing)
    t.notMatch(door.received().slice(before), /0\r\n\r\n$/, `${framing}: the service sees no end`)
  }
})

t.test('H-17 a GET or HEAD with a body goes on with its framing, and what follows is another request', async t => {
  const service = await startUpstream(t)
  const gateway = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const smuggled = `GET /smuggled HTTP/1.1\r\n${HOST}\r\n`
  for (const method of ['GET', 'HEAD', 'DELETE', 'OPTIONS']) {
    service.seen.length = 0
    const length = await raw(
      gateway.port,
      `${method} /length HTTP/1.1\r\n${HOST}Content-Length: ${smuggled.length}\r\n\r\n${smuggled}GET /next HTTP/1.1\r\n${HOST}\r\n`
    )
    t.match(
      service.seen,
      [
        { method, url: '/length', body: smuggled },
        { url: '/next', body: '' }
      ],
      `${method} with a length`
    )
    t.equal(service.seen.length, 2)
    t.equal(length.text.match(/HTTP\/1\.1 200/g)?.length, 2)
    service.seen.length = 0
    await raw(
      gateway.port,
      `${method} /chunks HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\nGET /next HTTP/1.1\r\n${HOST}\r\n`
    )
    t.match(
      service.seen,
      [
        { method, url: '/chunks', body: smuggled },
        { url: '/next', body: '' }
      ],
      `${method} with chunks`
    )
    t.equal(service.seen.length, 2)
  }
})

t.test(
  'H-17 a service that takes a GET’s body for the next request cannot give its answer to anybody else',
  async t => {
    const answers: string[] = []
    // CL.0: every head is a request, whatever its Content-Length says.
    const service = await startRawUpstream(t, (socket, received) => {
      const paths = [...received.matchAll(/GET (\S+) HTTP/g)].map(match => match[1] as string)
      for (const path of paths.slice((socket as { answered?: number }).answered ?? 0)) {
        answers.push(path)
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`)
      }
      ;(socket as { answered?: number }).answered = paths.length
    })
    const gateway = await startGateway(t, {
      services: { service: { url: service.url } },
      routes: [{ path: '/**', service: 'service', authentication: 'none' }]
    })
    const smuggled = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n'
    for (let i = 0; i < 10; i++) {
      t.equal((await gateway.call('/first', { body: smuggled })).text, '/first')
      t.equal((await gateway.call('/second')).text, '/second')
    }
    t.ok(answers.includes('/smuggled'))
  }
)

t.test(
  'H-17 TRC-06 requests that come before the answers to others wait, in order, and a refusal ends the row',
  async t => {
    const waiting: (() => void)[] = []
    const service = await startUpstream(t, (request, response) => {
      waiting.push(() => response.end(request.url))
    })
    const gateway = await startGateway(t, {
      services: { service: { url: service.url } },
      routes: [{ path: '/**', service: 'service', authentication: 'none' }]
    })
    const get = (path: string): string => `GET ${path} HTTP/1.1\r\n${HOST}\r\n`
    const answer = raw(
      gateway.port,
      [get('/1'), ...Array.from({ length: 200 }, (_, i) => get(`/${i + 2}`)), get('/..;/'), get('/behind')],
      { quietMs: 3000, patienceMs: 10_000 }
    )
    for (let i = 1; i <= 201; i++) {
      await until(() => waiting.length === i)
      if (service.seen.length !== i) t.fail(`${service.seen.length} requests are under way at once, not ${i}`)
      waiting.at(-1)?.()
    }
    const { text, closed } = await answer
    t.same(
      [...text.matchAll(/^\/(\d+)/gm)].map(match => Number(match[1])),
      Array.from({ length: 201 }, (_, i) => i + 1)
    )
    t.match(text, /HTTP\/1\.1 400/)
    t.ok(closed)
    t.notOk(service.seen.some(({ url }) => url === '/behind'))
  }
)

t.test('H-10 H-17 what is no HTTP behind good requests is refused after their answers', async t => {
  const service = await startUpstream(t, (request, response) =>
    setImmediate(() => response.end(`answer to ${request.url}\n`))
  )
  const gateway = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const answer = await raw(
    gateway.port,
    `GET /1 HTTP/1.1\r\n${HOST}\r\nGET /2 HTTP/1.1\r\n${HOST}\r\nno HTTP at all\r\n\r\nGET /3 HTTP/1.1\r\n${HOST}\r\n`
  )
  t.same(answer.text.match(/HTTP\/1\.1 \d+|answer to \S+/g), [
    'HTTP/1.1 200',
    'answer to /1',
    'HTTP/1.1 200',
    'answer to /2',
    'HTTP/1.1 400'
  ])
  t.ok(answer.closed)
  t.same(
    service.seen.map(({ url }) => url),
    ['/1', '/2']
  )

  const after = await raw(
    gateway.port,
    `GET /last HTTP/1.1\r\n${HOST}Connection: close\r\n\r\nGET /after HTTP/1.1\r\n${HOST}\r\n`
  )
  t.same(after.text.match(/HTTP\/1\.1 \d+|answer to \S+/g), ['HTTP/1.1 200', 'answer to /last'])
  t.ok(after.closed)
  t.equal(service.seen.length, 3)
})

t.test('H-17 a client that leaves while its requests wait takes them along', async t => {
  let begun = 0
  const service = await startRawUpstream(t, () => {
    begun++
  })
  const gateway = await startGateway(t, {
    services: { service: { url: service.url } },
    routes: [{ path: '/**', service: 'service', authentication: 'none' }]
  })
  const socket = net.connect(gateway.port, '127.0.0.1')
  socket.write(`GET /1 HTTP/1.1\r\n${HOST}\r\nGET /2 HTTP/1.1\r\n${HOST}\r\n`)
  await until(() => begun === 1)
  socket.destroy()
  await gateway.line({ path: '/1', status_code: 499 })
  t.equal(gateway.gateway.server.inFlight, 0)
  await gateway.call('/..;/')
  t.equal(begun, 1)
  t.notOk(gateway.lines().some(line => line.path === '/2'))
})
