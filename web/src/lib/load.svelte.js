// What a page shows, asked for and asked for again.
export class Load {
  data = $state.raw()
  error = $state('')
  busy = $state(false)
  #ask
  #turn = 0

  constructor(ask) {
    this.#ask = ask
    this.run()
  }

  /** Ask again; an older answer that comes late counts for nothing. */
  run = async () => {
    this.#turn += 1
    const turn = this.#turn
    this.busy = true
    try {
      const data = await this.#ask()
      if (turn !== this.#turn) return
      this.data = data
      this.error = ''
    } catch (error) {
      if (turn === this.#turn) this.error = error.message
    } finally {
      if (turn === this.#turn) this.busy = false
    }
  }
}

/** For an effect: do something every so many seconds while the page is seen. */
export function every(seconds, what) {
  const timer = setInterval(() => {
    if (document.visibilityState === 'visible') what()
  }, seconds * 1000)
  return () => clearInterval(timer)
}
