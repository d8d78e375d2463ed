import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { securityFields } from '../../plugins/security-headers.ts'
import { need, needProgram } from '../tools.ts'
import { CONNECTIONS, type Contender, LIMIT, ORIGIN, type Place, SECRET } from './contender.ts'

export const nginx: Contender = {
  name: 'nginx',
  title: 'nginx, plain',
  policies: 'none',
  missing: () => needProgram('nginx'),
  command: place => run('nginx', place, { http: 'access_log off;', location: '' })
}

/**
 * nginx with the same policies: HS256 verified at every request by OpenSSL, a limit per subject, a JSON log line, the same
 * response fields. It has no metrics, and its limit does not tell how much is left.
 */
export const nginxLua: Contender = {
  name: 'nginx-lua',
  title: 'nginx + Lua, same policies but metrics',
  policies: 'all',
  lacks: ['metrics', 'remaining'],
  missing: () =>
    needProgram('nginx') ??
    need('the Lua module of nginx', () => MODULES.every(module => existsSync(module)), [
      'libnginx-mod-http-lua',
      'lua-resty-core'
    ]),
  command(place) {
    writeFileSync(join(place.folder, 'token.lua'), LUA)
    return run('nginx-lua', place, {
      top: MODULES.map(module => `load_module ${module};`).join('\n'),
      http: `lua_package_path "${place.folder}/?.lua;/usr/share/lua/5.1/?.lua;;";
  limit_req_zone $consumer zone=consumers:10m rate=${Math.round(LIMIT / 60)}r/s;
  limit_req_status 429;
  log_format line escape=json '{"time":$msec,"request_id":"$request_id","method":"$request_method","path":"$uri","status_code":$status,"duration":$request_time,"client":"$remote_addr","consumer":"$consumer","upstream_ms":"$upstream_response_time","bytes_in":$request_length,"bytes_out":$bytes_sent}';
  access_log /dev/null line buffer=32k flush=1s;
  map $http_origin $allowed_origin { default ""; "${ORIGIN}" $http_origin; }`,
      location: `set $consumer "";
      rewrite_by_lua_block { ngx.var.consumer = require("token").subject() }
      limit_req zone=consumers burst=100000 nodelay;
      proxy_set_header Authorization "";
      proxy_set_header X-Request-Id $request_id;
      proxy_set_header X-User-Id $consumer;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      add_header X-Request-Id $request_id always;
      add_header Vary Origin always;
      add_header Access-Control-Allow-Origin $allowed_origin always;
      add_header RateLimit-Limit ${LIMIT} always;
      add_header RateLimit-Policy "${LIMIT};w=60" always;
${pairs(securityFields(SECURITY))
  .map(([name, value]) => `      add_header ${name} "${value}" always;`)
  .join('\n')}`
    })
  }
}

const SECURITY = {
  hsts_seconds: 31536000,
  content_security_policy: true,
  frame_options: 'sameorigin',
  referrer_policy: 'no-referrer'
} as const

const MODULES = ['/usr/lib/nginx/modules/ndk_http_module.so', '/usr/lib/nginx/modules/ngx_http_lua_module.so']

/** Verifies the bearer token of the request: signature and expiry. No cache, no JSON parser; so it is on the quick side. */
const LUA = `local ffi = require "ffi"
local base64 = require "ngx.base64"
ffi.cdef [[
const void *EVP_sha256(void);
unsigned char *HMAC(const void *md, const void *key, int key_len, const unsigned char *d, size_t n, unsigned char *out, unsigned int *out_len);
]]
local secret = "${SECRET}"
local out = ffi.new("unsigned char[32]")
local length = ffi.new("unsigned int[1]")

local function same(a, b)
  if #a ~= #b then return false end
  local difference = 0
  for i = 1, #a do difference = bit.bor(difference, bit.bxor(a:byte(i), b:byte(i))) end
  return difference == 0
end

local function refuse()
  ngx.header["WWW-Authenticate"] = "Bearer"
  return ngx.exit(401)
end

local function subject()
  local field = ngx.var.http_authorization
  if not field then return refuse() end
  local head, claims, signature = field:match("^Bearer ([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  if not head then return refuse() end
  local header = base64.decode_base64url(head)
  if not header or not header:find('"alg":"HS256"', 1, true) then return refuse() end
  local signed = head .. "." .. claims
  ffi.C.HMAC(ffi.C.EVP_sha256(), secret, #secret, signed, #signed, out, length)
  if not same(base64.encode_base64url(ffi.string(out, 32)), signature) then return refuse() end
  local payload = base64.decode_base64url(claims)
  local expires = payload and tonumber(payload:match('"exp":(%d+)'))
  local name = payload and payload:match('"sub":"([^"]+)"')
  if not expires or not name or expires <= ngx.time() then return refuse() end
  return name
end

return { subject = subject }
`

interface Extra {
  readonly top?: string
  readonly http: string
  readonly location: string
}

/** One worker in the foreground, with kept connections on both sides. */
function run(name: string, { folder, port, upstream }: Place, { top = '', http, location }: Extra): string[] {
  const file = writeNginx(
    folder,
    name,
    top,
    `${http}
  map $http_upgrade $connection_field { default upgrade; "" ""; }
  upstream orders { server 127.0.0.1:${upstream}; keepalive ${CONNECTIONS}; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port};
    client_max_body_size 0;
    location / {
      proxy_pass http://orders;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_field;
      ${location}
    }
  }`
  )
  return ['nginx', '-c', file]
}

/** Writes a configuration with everything in `folder`. @param http what stands in its `http` block */
export function writeNginx(folder: string, name: string, top: string, http: string): string {
  const own = join(folder, name)
  mkdirSync(own, { recursive: true })
  const file = join(own, 'nginx.conf')
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map(kind => `  ${kind}_temp_path ${own}/${kind};`)
    .join('\n')
  writeFileSync(
    file,
    `${process.getuid?.() === 0 ? 'user root;\n' : ''}${top}
worker_processes 1;
daemon off;
pid ${own}/pid;
error_log stderr error;
events { worker_connections 8192; }
http {
${temporary}
  keepalive_requests 1000000000;
  ${http}
}
`
  )
  return file
}

function pairs(fields: readonly string[]): [name: string, value: string][] {
  return fields.flatMap((name, i) => (i % 2 === 0 ? [[name, fields[i + 1] as string] as [string, string]] : []))
}
