import t from 'tap'
import { ERROR_FORMATS, type ErrorFormat, formatError, prefersProblem } from '../../src/error-formats.ts'
import { CATALOGUE, type ErrorCode, type RefusalOptions, refuse } from '../../src/errors.ts'

const CONTEXT = { requestId: 'req_01jq', now: Date.parse('2025-03-29T07:50:00.123Z') }

function body(
  code: ErrorCode,
  format: ErrorFormat,
  options: RefusalOptions = {},
  limitMessage?: { code?: string; message?: string }
): string {
  return formatError(refuse(code, options), format, { ...CONTEXT, limitMessage }).body
}

t.test('ERR-01 C-07 the envelope is that of seed 000, letter by letter', async t => {
  t.equal(
    body('authentication_failed', 'envelope', { details: 'The provided API key is not valid.' }),
    '{"error":{"code":"authentication_failed","message":"Invalid credentials provided.","details":"The provided API key is not valid.","status":401,"request_id":"req_01jq","timestamp":"2025-03-29T07:50:00.123Z"}}'
  )
  t.equal(
    body('not_found', 'envelope'),
    '{"error":{"code":"not_found","message":"Nothing is found here.","details":null,"status":404,"request_id":"req_01jq","timestamp":"2025-03-29T07:50:00.123Z"}}'
  )
})

t.test('ERR-01 every code of seed 000 has its status', async t => {
  const statuses: Partial<Record<ErrorCode, number>> = {
    authentication_required: 401,
    authentication_failed: 401,
    invalid_credentials: 401,
    expired_token: 401,
    insufficient_permissions: 403,
    not_found: 404,
    method_not_allowed: 405,
    validation_error: 422,
    rate_limit_exceeded: 429,
    internal_error: 500,
    service_unavailable: 503
  }
  for (const [code, status] of Object.entries(statuses))
    t.match(JSON.parse(body(code as ErrorCode, 'envelope')).error, { code, status })
})

t.test('ERR-05 so have the further ones', async t => {
  const statuses: Partial<Record<ErrorCode, number>> = {
    payload_too_large: 413,
    unsupported_version: 406,
    bad_gateway: 502,
    gateway_timeout: 504,
    overloaded: 503,
    ip_blocked: 403,
    conflict: 409
  }
  for (const [code, status] of Object.entries(statuses))
    t.match(JSON.parse(body(code as ErrorCode, 'envelope')).error, { code, status })
})

t.test('ERR-03 VAL-02 C-07 "detail" is the body of seed 001, letter by letter', async t => {
  t.equal(
    body('validation_error', 'detail', {
      details: 'more',
      fields: [{ field: 'a.b', message: 'too short', type: 'minLength' }]
    }),
    '{"detail":"Validation error","errors":[{"field":"a.b","message":"too short","type":"minLength"}]}'
  )
  t.equal(
    body('internal_error', 'detail'),
    '{"detail":"Internal server error","message":"More is in the log, under req_01jq."}'
  )
  t.equal(body('authentication_required', 'detail', { details: 'more' }), '{"detail":"Not authenticated"}')
  t.equal(body('not_found', 'detail'), '{"detail":"Nothing is found here."}')
  t.equal(
    body('insufficient_permissions', 'detail', { details: 'This needs the role chef.' }),
    '{"detail":"The permissions do not suffice.","message":"This needs the role chef."}'
  )
})

t.test('ERR-06 RTE-21 RES-07 C-07 "flat" is the body of seed 003, letter by letter', async t => {
  t.equal(body('rate_limit_exceeded', 'flat'), '{"error":"Rate limit exceeded"}')
  t.equal(body('not_found', 'flat'), '{"error":"Route not found"}')
  t.equal(body('service_unavailable', 'flat', { details: 'more' }), '{"error":"Service unavailable"}')
  t.equal(body('gateway_timeout', 'flat'), '{"error":"The service did not answer in time"}')
})

t.test('RLM-25 ERR-04 C-07 "code_message" is the body of seed 004, letter by letter', async t => {
  const seed = '{"code":"RATE_LIMIT_EXCEEDED","message":"Too many requests, please try again later"}'
  t.equal(body('rate_limit_exceeded', 'code_message'), seed)
  t.equal(
    body(
      'rate_limit_exceeded',
      'code_message',
      {},
      { code: 'RATE_LIMIT_EXCEEDED', message: 'Too many requests, please try again later' }
    ),
    seed
  )
  t.equal(body('expired_token', 'code_message'), '{"code":"EXPIRED_TOKEN","message":"The token has expired"}')
})

t.test('RLM-25 the limiter’s own words are used in every format, and for nothing else', async t => {
  const words = { code: 'SLOW_DOWN', message: 'Slow down!' }
  t.equal(body('rate_limit_exceeded', 'code_message', {}, words), '{"code":"SLOW_DOWN","message":"Slow down!"}')
  t.equal(body('rate_limit_exceeded', 'flat', {}, words), '{"error":"Slow down!"}')
  for (const format of ['envelope', 'problem', 'detail'] as const)
    t.match(body('rate_limit_exceeded', format, {}, words), '"Slow down!"', format)
  for (const format of ERROR_FORMATS) t.notMatch(body('not_found', format, {}, words), /slow/i, format)
})

t.test('C-07 a problem is that of RFC 9457', async t => {
  const error = refuse('validation_error', {
    details: 'body/id must be string',
    fields: [{ field: 'id', message: 'must be string', type: 'type' }]
  })
  const { type, body } = formatError(error, 'problem', CONTEXT)
  t.equal(type, 'application/problem+json; charset=utf-8')
  t.same(JSON.parse(body), {
    type: 'urn:sallyport:validation_error',
    title: 'The request does not validate.',
    status: 422,
    detail: 'body/id must be string',
    code: 'validation_error',
    request_id: 'req_01jq',
    errors: [{ field: 'id', message: 'must be string', type: 'type' }]
  })
})

t.test('VAL-06 ERR-04 no body is anything but JSON, whoever reads it, and none shows what is for the log', async t => {
  const script = '</script><script>alert(1)</script><!--'
  for (const code of Object.keys(CATALOGUE) as ErrorCode[]) {
    for (const format of ERROR_FORMATS) {
      const options = {
        details: script,
        reason: 'secret-reason',
        cause: new Error('secret-cause'),
        fields: [{ field: script, message: script, type: script }]
      }
      const { type, body } = formatError(refuse(code, options), format, {
        ...CONTEXT,
        limitMessage: { message: script }
      })
      t.notMatch(body, /<|secret/, `${code} ${format}`)
      t.match(type, /^application\/(problem\+)?json; charset=utf-8$/)
      t.doesNotThrow(() => JSON.parse(body))
    }
  }
  t.equal(JSON.parse(body('bad_request', 'envelope', { details: script })).error.details, script, 'it reads as it was')
})

t.test('C-07 a problem is what those get who want it no less than JSON', async t => {
  const wanted = [
    'application/problem+json',
    'Application/Problem+JSON',
    'application/problem+json; charset=utf-8',
    'application/problem+json, application/json',
    'application/json, application/problem+json',
    'application/json;q=0.5, application/problem+json',
    'application/problem+json;q=0.1',
    'text/html, application/problem+json;q=0.9, */*;q=0.8',
    'application/problem+json;q=0.5, application/*;q=0.5',
    '*/*, application/problem+json'
  ]
  for (const accept of wanted) t.equal(prefersProblem(accept), true, accept)
  const unwanted = [
    undefined,
    '',
    '*/*',
    'application/json',
    'application/*',
    'text/html',
    'application/problem+json;q=0',
    'application/problem+json;q=0.0, application/json',
    'application/problem+json;q=0.4, application/json;q=0.5',
    'application/problem+json;q=0.5, */*',
    'application/problem+json;q=0.5, application/*;q=0.6',
    'application/problem+json;q=nonsense',
    'application/problem+jsonx',
    'x-application/problem+json'
  ]
  for (const accept of unwanted) t.equal(prefersProblem(accept), false, String(accept))
})
