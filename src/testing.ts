export { definePolicy } from './policy.ts'
export { Type } from './schema.ts'
