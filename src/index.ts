/** What plugins and other programs may use of the gateway. What is not here may change at any time. */
export { ApiGatewayManager } from './api-gateway-manager.ts'
export { ConfigError, type Problem } from './config/problem.ts'
export { type ErrorCode, GatewayError, type RefusalOptions, refuse } from './errors.ts'
export type { Consumer } from './identity/consumer.ts'
export { ApiGatewayRateLimiter, type ClientStats, RateLimitConfig } from './limits/api-gateway-rate-limiter.ts'
export { RedisRateLimiter, type ScriptClient } from './limits/redis-rate-limiter.ts'
export { TokenBucket } from './limits/token-bucket.ts'
export { definePolicy, OptionError, type Policy, type PolicyContext, type RouteHooks } from './policy.ts'
export type { Exchange } from './proxy/exchange.ts'
export {
  type HealthReport,
  type ServiceDefinition,
  type ServiceInstance,
  ServiceRegistry
} from './registry/service-registry.ts'
export { ApiGatewayRouter } from './routing/router.ts'
export type { Clock } from './runtime/clock.ts'
export type { Runtime } from './runtime/runtime.ts'
export { duration, listOf, type OptionNotes, oneOf, type Static, size, Type } from './schema.ts'
export type { BreakerState, BreakerStats } from './upstream/breaker.ts'
export {
  ApiCircuitBreaker,
  ApiFallbackService,
  CircuitBreakerConfig,
  CircuitBreakerManager,
  CircuitBreakerOpenError
} from './upstream/circuit-breaker-manager.ts'
