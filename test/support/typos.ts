// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are the placeholders of the configuration.

/** A configuration that is good, and forty slips in it: what a user writes, and what he has to be told. */

/** Needs `ORDERS_URL` and `TYPO_SECRET` in the environment, and `greeting.ts` beside it. */
export const GOOD = `server:
  trusted_proxies: [loopback]
identity:
  jwt: { secret: "\${TYPO_SECRET}", algorithm: HS256 }
defaults:
  timeout: 10s
  cors: { origins: ["https://dashboard.example.com"], max_age: 10m }
services:
  orders:
    instances:
      - { id: a, url: "\${ORDERS_URL}", weight: 2 }
    retry: { attempts: 2, retry_on: [connect, 503] }
    timeouts: { connect: 2s }
  chat: { url: "\${ORDERS_URL}" }
routes:
  - path: /api/v1/orders/**
    service: orders
    timeout: 20s
    methods: [GET, POST]
    rate_limit: { requests_per_minute: 100000, burst: 20000 }
    permissions: [orders.read]
  - path: /open/{name}
    service: chat
    websocket: true
    authentication: none
    rewrite: /hello/{name}
    body_limit: 1mb
    plugins: { greeting: { text: hello, repeat: 1 } }
rate_limits:
  roles: { admin: null, user: 60 }
  user_tiers: { free: { requests_per_second: 5, burst: 10 } }
logging: { level: info }
plugins:
  - { use: ./greeting.ts, before: rate_limit }
`

export const GREETING = `import { definePolicy, Type } from 'sallyport'
export default definePolicy({
  name: 'greeting',
  schema: Type.Object({
    text: Type.String({ description: 'What to say.', minLength: 1 }),
    repeat: Type.Integer({ description: 'How often.', default: 1, minimum: 1, maximum: 3 })
  }),
  compile: ({ text, repeat }) => ({ onRequest: (request, _reply, done) => { request.exchange.fields.push('x-greeting', text.repeat(repeat)); done() } })
})
`

export interface Typo {
  readonly name: string
  /** What stands in {@link GOOD}, and what stands there instead. */
  readonly from: string
  readonly to: string
  /** Line and column, counting from 1. */
  readonly at: string
  /** The key, as it was spelled. */
  readonly key: string
  readonly message: RegExp
}

const rows: [name: string, from: string, to: string, at: string, key: string, message: RegExp][] = [
  // Keys.
  ['a key at the top', 'services:', 'servces:', '8:1', 'servces', /unknown key, did you mean "services"\?/],
  [
    'a key of the server',
    'trusted_proxies',
    'trusted_proxy',
    '2:3',
    'server.trusted_proxy',
    /did you mean "trusted_proxies"\?/
  ],
  [
    'a key of a route',
    'timeout: 20s',
    'time_out: 20s',
    '18:5',
    'routes[0].time_out',
    /unknown key, did you mean "timeout"\?/
  ],
  [
    'a key cut short',
    'authentication: none',
    'auth: none',
    '25:5',
    'routes[1].auth',
    /did you mean "authentication"\?/
  ],
  [
    'a key of an alias',
    'timeouts: { connect: 2s }',
    'timeout_config: { conect: 2 }',
    '13:23',
    'services.orders.timeout_config.conect',
    /did you mean "connect"\?/
  ],
  ['a key of a policy', 'origins:', 'origns:', '7:11', 'defaults.cors.origns', /did you mean "origins"\?/],
  [
    'a key of a limit',
    'requests_per_minute: 100000',
    'request_per_minute: 100000',
    '20:19',
    'routes[0].rate_limit.request_per_minute',
    /did you mean "requests_per_minute"\?/
  ],
  [
    'a key of a retry',
    'attempts: 2',
    'attemps: 2',
    '12:14',
    'services.orders.retry.attemps',
    /did you mean "attempts"\?/
  ],
  [
    'a key of a tier',
    'requests_per_second: 5',
    'requests_per_sec: 5',
    '31:25',
    'rate_limits.user_tiers.free.requests_per_sec',
    /did you mean "requests_per_second"\?/
  ],
  ['a policy', 'body_limit: 1mb', 'bodylimit: 1mb', '27:5', 'routes[1].bodylimit', /did you mean "body_limit"\?/],
  ['a key twice', '    websocket: true', '    service: chat', '24:5', 'routes[1].service', /stands here twice/],
  // Values.
  [
    'a word',
    'authentication: none',
    'authentication: non',
    '25:21',
    'routes[1].authentication',
    /"non" should be .*did you mean "none"\?/
  ],
  ['an algorithm', 'algorithm: HS256', 'algorithm: HS265', '4:47', 'identity.jwt.algorithm', /did you mean "HS256"\?/],
  ['a level', 'level: info', 'level: inf', '32:19', 'logging.level', /did you mean "info"\?/],
  ['a truth', 'websocket: true', 'websocket: ture', '24:16', 'routes[1].websocket', /"ture" should be true or false/],
  [
    'a number in words',
    'attempts: 2',
    'attempts: two',
    '12:24',
    'services.orders.retry.attempts',
    /"two" should be a whole number/
  ],
  [
    'a number too small',
    'weight: 2',
    'weight: -2',
    '11:48',
    'services.orders.instances[0].weight',
    /-2 must be at least 0/
  ],
  [
    'a text for a list',
    'origins: ["https://dashboard.example.com"]',
    'origins: "https://dashboard.example.com"',
    '7:20',
    'defaults.cors.origins',
    /should be a list/
  ],
  [
    'a list for a mapping',
    'user_tiers: { free: { requests_per_second: 5, burst: 10 } }',
    'user_tiers: [free]',
    '31:15',
    'rate_limits.user_tiers',
    /a list should be a mapping/
  ],
  [
    'a method',
    'methods: [GET, POST]',
    'methods: [GTE, POST]',
    '19:15',
    'routes[0].methods[0]',
    /"GTE" is no method, did you mean "GET"\?/
  ],
  [
    'a failure to retry on',
    '[connect, 503]',
    '[conect, 503]',
    '12:38',
    'services.orders.retry.retry_on[0]',
    /did you mean "connect"\?/
  ],
  [
    'an address without a scheme',
    'url: "${ORDERS_URL}" }\nroutes',
    'url: "127.0.0.1:80" }\nroutes',
    '14:16',
    'services.chat.url',
    /write http:\/\/host:port/
  ],
  ['a path without a slash', 'path: /open/{name}', 'path: open/{name}', '22:11', 'routes[1].path', /begin with "\/"/],
  [
    'a wildcard in the middle',
    'path: /api/v1/orders/**',
    'path: /api/**/orders',
    '16:11',
    'routes[0].path',
    /"\*\*" at its end only/
  ],
  // Units.
  ['a unit', 'timeout: 20s', 'timeout: 20sec', '18:14', 'routes[0].timeout', /"20sec" is no duration: write 30s/],
  [
    'a unit with a comma',
    'connect: 2s',
    'connect: "2,5s"',
    '13:26',
    'services.orders.timeouts.connect',
    /is no duration/
  ],
  ['a negative duration', 'timeout: 10s', 'timeout: -10s', '6:12', 'defaults.timeout', /is no duration/],
  ['a size', 'body_limit: 1mb', 'body_limit: 1 meg', '27:17', 'routes[1].body_limit', /is no size: write 64kb/],
  // References.
  [
    'a service',
    'service: orders',
    'service: ordrs',
    '17:14',
    'routes[0].service',
    /"ordrs" is not a service, did you mean "orders"\? There are: orders, chat/
  ],
  [
    'a parameter',
    'rewrite: /hello/{name}',
    'rewrite: /hello/{nme}',
    '26:14',
    'routes[1].rewrite',
    /no parameter "nme", did you mean "name"\?/
  ],
  [
    'a neighbour',
    'before: rate_limit',
    'before: ratelimit',
    '34:35',
    'plugins[0].before',
    /"ratelimit" is no concern, did you mean "rate_limit"\?/
  ],
  [
    'a route twice',
    'permissions: [orders.read]',
    'permissions: [orders.read]\n  - { path: "/open/:id", service: chat }',
    '23:11',
    'routes[2].path',
    /matches the same requests as the route at .*gateway\.yaml:22/
  ],
  [
    'a reserved path',
    'path: /open/{name}',
    'path: /health/{name}',
    '22:11',
    'routes[1].path',
    /\/health\/\*\* is the gateway's own; move that with paths\.health/
  ],
  ['a plugin’s file', 'use: ./greeting.ts', 'use: ./greting.ts', '34:12', 'plugins[0].use', /no such file/],
  // Names of variables.
  [
    'a variable',
    '${TYPO_SECRET}',
    '${TYPO_SECERT}',
    '4:18',
    'identity.jwt.secret',
    /TYPO_SECERT is not set, did you mean TYPO_SECRET\?/
  ],
  [
    'a variable of an address',
    'url: "${ORDERS_URL}", weight',
    'url: "${ORDER_URL}", weight',
    '11:23',
    'services.orders.instances[0].url',
    /ORDER_URL is not set, did you mean ORDERS_URL\?/
  ],
  // Options of plugins.
  [
    'a plugin’s option',
    'text: hello',
    'txt: hello',
    '28:28',
    'routes[1].plugins.greeting.txt',
    /unknown key, did you mean "text"\?/
  ],
  ['a plugin’s value', 'repeat: 1', 'repeat: 5', '28:49', 'routes[1].plugins.greeting.repeat', /5 must be at most 3/],
  [
    'a plugin',
    'plugins: { greeting:',
    'plugins: { greetings:',
    '28:16',
    'routes[1].plugins.greetings',
    /did you mean "greeting"\?/
  ],
  // The language itself.
  ['an indentation', '    service: orders', '   service: orders', '17:1', '', /is no YAML/],
  ['a bracket', 'methods: [GET, POST]', 'methods: [GET, POST', '20:5', '', /is no YAML/]
]

export const TYPOS: readonly Typo[] = rows.map(([name, from, to, at, key, message]) => ({
  name,
  from,
  to,
  at,
  key,
  message
}))

/** The configuration with one slip. */
export function withTypo({ name, from, to }: Typo): string {
  if (!GOOD.includes(from)) throw new Error(`${name}: there is no "${from}" in the configuration`)
  return GOOD.replace(from, () => to)
}
