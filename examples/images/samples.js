// Pictures to try it with, drawn here: hills under a sky. The same ones each time.

const WIDTH = 1200;
const HEIGHT = 800;

/** @returns {Promise<File[]>}  So many pictures, a smaller copy of the third one, and one that is broken. */
export async function samples(count) {
  const files = [];
  for (let number = 1; number <= count; number++) files.push(await save(draw(number), `hills ${number}.png`));
  const copy = new OffscreenCanvas(WIDTH / 2, HEIGHT / 2);
  copy.getContext("2d").drawImage(draw(3), 0, 0, copy.width, copy.height);
  files.push(await save(copy, "hills 3, small.jpg", "image/jpeg"));
  files.push(new File([(await files[0].arrayBuffer()).slice(0, 100)], "broken.png"));
  return files;
}

async function save(canvas, name, type = "image/png") {
  return new File([await canvas.convertToBlob({ type, quality: 0.6 })], name, { type });
}

function draw(number) {
  const random = randomFrom(number * 7919);
  const canvas = new OffscreenCanvas(WIDTH, HEIGHT);
  const context = canvas.getContext("2d");
  const hue = random() * 360;
  const sky = context.createLinearGradient(0, 0, 0, HEIGHT);
  sky.addColorStop(0, `hsl(${hue} 70% 35%)`);
  sky.addColorStop(1, `hsl(${hue + 60} 80% 80%)`);
  context.fillStyle = sky;
  context.fillRect(0, 0, WIDTH, HEIGHT);
  context.fillStyle = `hsl(${hue + 180} 90% 75%)`;
  context.beginPath();
  context.arc(random() * WIDTH, random() * HEIGHT * 0.5, 60 + random() * 80, 0, 7);
  context.fill();
  for (let hill = 0; hill < 4; hill++) {
    const [height, swing, shift] = [HEIGHT * (0.45 + hill * 0.14), 40 + random() * 120, random() * 7];
    const pace = 150 + random() * 250;
    context.fillStyle = `hsl(${hue + 100 + hill * 25} 40% ${55 - hill * 12}%)`;
    context.beginPath();
    context.moveTo(0, HEIGHT);
    for (let x = 0; x <= WIDTH; x += 10) context.lineTo(x, height + swing * Math.sin(x / pace + shift));
    context.lineTo(WIDTH, HEIGHT);
    context.fill();
  }
  return canvas;
}

/** Numbers in [0, 1) that a seed decides (mulberry32). */
function randomFrom(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
