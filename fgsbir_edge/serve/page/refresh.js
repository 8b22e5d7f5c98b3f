// Asks again whenever something has changed: a little later, so that a quick hand does not ask for every point, and never longer
// than LONGEST after the first change. Questions are numbered; an answer that comes after a newer one was shown is dropped.

const WAIT = 120, LONGEST = 360; // ms
const AT_ONCE = 2; // questions under way

export class Refresher {
  // ``rest`` is told whether what is shown belongs to the latest question.
  constructor(ask, show, fail, rest) {
    Object.assign(this, { ask, show, fail, rest, sent: 0, shown: 0, under: 0, timer: 0, first: 0 });
  }
  changed() {
    this.rest(false);
    const now = performance.now();
    if (!this.timer) this.first = now;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.send(), Math.max(0, Math.min(WAIT, this.first + LONGEST - now)));
  }
  // Nothing that is under way, or was to be asked, counts any more.
  drop() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.shown = this.sent;
    this.rest(true);
  }
  async send() {
    this.timer = 0;
    if (this.under >= AT_ONCE) {
      this.changed();
      return;
    }
    const number = ++this.sent;
    this.under++;
    try {
      const answer = await this.ask();
      if (number > this.shown) {
        this.shown = number;
        this.show(answer);
      }
    } catch (fault) {
      if (fault.wait && number === this.sent) setTimeout(() => this.changed(), fault.wait * 1000);
      else if (number > this.shown) this.fail(fault);
    } finally {
      this.under--;
      if (!this.timer && this.shown === this.sent) this.rest(true);
    }
  }
}
