// Starts the page anew when nobody has touched it for a while, and warns before.

const WARNING = 10; // seconds, or a third of the whole where that is less
const SIGNS = ["pointerdown", "pointermove", "keydown", "wheel", "touchstart"];

export class Idle {
  constructor(dialog, left, seconds, inUse, reset) {
    Object.assign(this, { dialog, left, inUse, reset, seconds, warning: Math.min(WARNING, seconds / 3) });
    if (!seconds) return;
    // While it warns, a tap must end on the warning: one that made it go away at once would draw a dot on the board below.
    const sign = () => { if (!dialog.open) this.touched(); };
    for (const kind of SIGNS) addEventListener(kind, sign, { capture: true, passive: true });
    for (const kind of ["click", "keyup", "cancel"]) dialog.addEventListener(kind, () => this.touched());
    this.touched();
    setInterval(() => this.look(), 250);
  }
  touched() {
    this.last = performance.now();
    if (this.dialog.open) this.dialog.close();
  }
  look() {
    const left = this.seconds - (performance.now() - this.last) / 1000;
    if (!this.inUse()) {
      this.last = performance.now();
    } else if (left <= 0) {
      this.touched();
      this.reset();
    } else if (left <= this.warning) {
      this.left.textContent = Math.ceil(left);
      if (!this.dialog.open) this.dialog.showModal();
    }
  }
}
