/** What other programs may use of the gateway. */
export { ApiGatewayRateLimiter, type ClientStats, RateLimitConfig } from './limits/api-gateway-rate-limiter.ts'
export { RedisRateLimiter, type ScriptClient } from './limits/redis-rate-limiter.ts'
export { TokenBucket } from './limits/token-bucket.ts'
