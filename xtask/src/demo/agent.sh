# What the agent of the demo does. It is an ordinary program: nothing in it knows of agentwatch.
set -eu
port=$1
mkdir project && cd project

# Files, and programs that work on them.
printf 'def greet(name):\n    return "hello " + name\n' > greet.py
printf 'token = "not a real one"\n' > settings.toml
chmod 600 settings.toml
python3 -c 'import greet; open("result.txt", "w").write(greet.greet("world"))'
mv result.txt greeting.txt
ln -s greeting.txt latest
rm settings.toml

# It tries to get rid of a database, in several ways: see the policy of the demo.
rm ../precious.db || echo "the agent: rm did not work, I try another way"
mv ../precious.db old.db || echo "the agent: neither did mv"
python3 -c 'open("../precious.db", "w")' 2> /dev/null || echo "the agent: it cannot be emptied either"

git init --quiet .
git -c user.name=agent -c user.email=agent@example.com add greet.py
git -c user.name=agent -c user.email=agent@example.com commit --quiet --message 'Greet'

# A server of somebody else on this machine, asked over the network.
python3 - "$port" << 'PYTHON'
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as peer:
    peer.sendall(b"what time is it?\n")
    print("the server says:", peer.recv(100).decode().strip())
PYTHON

# A child that outlives the agent, in a session of its own and with another parent.
setsid sh -c 'sleep 3; echo "the agent is gone, I am not" > left-behind.txt' < /dev/null > /dev/null 2>&1 &
