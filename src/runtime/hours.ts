/** When something holds, in a time zone. */
export interface Hours {
  /** `mon` … `sun`; every day if empty. */
  readonly days: readonly Day[]
  /** `08:00`. */
  readonly from: string
  /** `18:00`, which is no longer part of it; before `from` it is of the next day. */
  readonly to: string
  /** An IANA name. */
  readonly zone: string
}

export const DAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const
export type Day = (typeof DAYS)[number]

const MINUTE_MS = 60_000
const WEEK_DAYS = 7

/**
 * Compiles hours into a look at the clock. What a minute is in another time zone takes a hundred times longer to find out than
 * the rest of a request, so the answer is kept for the minute that it is about: no zone's minutes begin at another second.
 * @throws {RangeError} for a time zone that nobody knows
 */
export function compileHours({ days, from, to, zone }: Hours): (now: number) => boolean {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: zone,
    weekday: 'short',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23'
  })
  const [start, end] = [minutesOf(from), minutesOf(to)]
  const wanted = new Set(days.length === 0 ? DAYS : days)
  const holds = (weekday: number, minute: number): boolean => {
    const begun = (back: number): boolean => wanted.has(DAYS[(weekday - back + WEEK_DAYS) % WEEK_DAYS] as Day)
    if (start < end) return minute >= start && minute < end && begun(0)
    // Past midnight, it is still the night of the day before.
    return (minute >= start && begun(0)) || (minute < end && begun(1))
  }
  let known = { minute: Number.NaN, holds: false }
  return now => {
    const minute = Math.floor(now / MINUTE_MS)
    if (minute !== known.minute) known = { minute, holds: holds(...weekTime(format, now)) }
    return known.holds
  }
}

/** Day of the week, and minute of the day. */
function weekTime(format: Intl.DateTimeFormat, now: number): [weekday: number, minute: number] {
  const parts = new Map(format.formatToParts(now).map(({ type, value }) => [type, value]))
  const weekday = DAYS.indexOf((parts.get('weekday') as string).toLowerCase() as Day)
  return [weekday, Number(parts.get('hour')) * 60 + Number(parts.get('minute'))]
}

function minutesOf(time: string): number {
  const [hours = '', minutes = ''] = time.split(':')
  return Number(hours) * 60 + Number(minutes)
}
