package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
)

// brokers are a Redis and a RabbitMQ as Debian has them, with their defaults, on ports and in a folder of their own. Nothing is kept on disk:
// neither fan-out needs it.
type brokers struct {
	dir                         string
	redis, rabbit, epmd         *process // epmd tells Erlang's nodes from each other
	redisURL, amqpURL           string
	redisPIDs, rabbitPIDs       []int // whose processor time counts
	redisVersion, rabbitVersion string
}

// rabbitTimeout is how long RabbitMQ may take to come up: Erlang loads some hundred modules.
const rabbitTimeout = time.Minute

// startBrokers returns when both take messages.
func startBrokers(ctx context.Context) (b *brokers, err error) {
	b = new(brokers)
	defer func() {
		if err != nil {
			b.kill()
		}
	}()
	if b.dir, err = os.MkdirTemp("", "selvedge-brokers-"); err != nil {
		return b, err
	}
	if err := b.startRedis(ctx); err != nil {
		return b, err
	}
	return b, b.startRabbitMQ(ctx)
}

func (b *brokers) startRedis(ctx context.Context) error {
	path, err := findServer("redis-server", "redis-server")
	if err != nil {
		return err
	}
	addr, port, err := freePort()
	if err != nil {
		return err
	}
	// By default Redis cuts off a subscriber that is 32 MiB behind, and what it had for it is lost: in its favour it may take all the memory it wants.
	b.redis, err = startProcess("Redis", exec.Command(path, "--bind", "127.0.0.1", "--port", port, "--dir", b.dir, "--save", "", "--daemonize", "no",
		"--client-output-buffer-limit", "pubsub 0 0 0"), "")
	if err != nil {
		return err
	}
	b.redisURL = "redis://" + addr
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = client.Close() }() // nothing is under way
	if err := b.redis.answers(ctx, startTimeout, func() error { return client.Ping(ctx).Err() }); err != nil {
		return err
	}
	b.redisPIDs, err = withChildren([]int{b.redis.pid()})
	if err != nil {
		return err
	}
	info, err := client.InfoMap(ctx, "server").Result()
	b.redisVersion = "Redis " + info["Server"]["redis_version"]
	return err
}

func (b *brokers) startRabbitMQ(ctx context.Context) error {
	path, err := findServer("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server") // that in the PATH changes to a user of its own
	if err != nil {
		return err
	}
	epmd, err := findServer("epmd", "erlang-base")
	if err != nil {
		return err
	}
	var ports [3]string
	for i := range ports {
		if _, ports[i], err = freePort(); err != nil {
			return err
		}
	}
	names, clients, nodes := ports[0], ports[1], ports[2]
	// Without one of ours Erlang would start one, which stays behind.
	if b.epmd, err = startProcess("epmd", exec.Command(epmd, "-port", names, "-address", "127.0.0.1"), ""); err != nil {
		return err
	}
	err = b.epmd.answers(ctx, startTimeout, func() error { return reachable("127.0.0.1:" + names) })
	if err != nil {
		return err
	}
	config := filepath.Join(b.dir, "rabbitmq.conf")
	text := "listeners.tcp.1 = 127.0.0.1:" + clients + "\nlog.file = false\nlog.console = true\nlog.console.level = error\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(path)
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(), "HOME="+b.dir, "ERL_EPMD_PORT="+names, "RABBITMQ_NODENAME=bench@localhost", "RABBITMQ_DIST_PORT="+nodes,
		"RABBITMQ_CONFIG_FILE="+config, "RABBITMQ_CONF_ENV_FILE="+filepath.Join(b.dir, "none"), "RABBITMQ_MNESIA_BASE="+b.dir, "RABBITMQ_LOG_BASE="+b.dir,
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(b.dir, "plugins"), "RABBITMQ_PID_FILE="+filepath.Join(b.dir, "pid"))
	if b.rabbit, err = startProcess("RabbitMQ", cmd, ""); err != nil {
		return err
	}
	b.amqpURL = "amqp://guest:guest@127.0.0.1:" + clients + "/"
	err = b.rabbit.answers(ctx, rabbitTimeout, func() error {
		conn, err := amqp091.Dial(b.amqpURL)
		if err != nil {
			return err
		}
		version, _ := conn.Properties["version"].(string)
		b.rabbitVersion = "RabbitMQ " + version
		return conn.Close()
	})
	if err != nil {
		return err
	}
	b.rabbitPIDs, err = withChildren([]int{b.rabbit.pid()})
	return err
}

// answers waits until ask has no error any more.
func (p *process) answers(ctx context.Context, within time.Duration, ask func() error) error {
	for deadline := time.Now().Add(within); ; {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended at once: %v\n%s", p.name, p.cmd.ProcessState, p.tail())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not come up: %w\n%s", p.name, err, p.tail())
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

func reachable(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

func freePort() (addr, port string, err error) {
	if addr, err = freeAddr(); err != nil {
		return "", "", err
	}
	_, port, err = net.SplitHostPort(addr)
	return addr, port, err
}

func findServer(command, debian string) (string, error) {
	path, err := exec.LookPath(command)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s is not installed; `apt-get install --no-install-recommends %s` brings it", filepath.Base(command), debian)
	}
	return path, err
}

func (b *brokers) kill() {
	b.redis.kill()
	b.rabbit.kill()
	b.epmd.kill()
	if b.dir != "" {
		_ = os.RemoveAll(b.dir) // in the system's folder for such
	}
}
